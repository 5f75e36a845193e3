"""`python -m maskrcnn` is the command `maskrcnn`."""

if __name__ == "__main__":
    from maskrcnn.cli.main import main

    main()
