"""Code that runs inside the Python backend of the embedded server; nothing of tritonforge is imported here."""
