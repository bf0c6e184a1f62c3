"""Files that go into the backend directory's folder ``openvino``."""
