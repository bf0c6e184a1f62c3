import os


def main() -> None:
    """Print the files here."""
    for name in sorted(os.listdir(".")):
        print(name)


if __name__ == "__main__":
    main()
