"""`python -m tollgate`: the command line, where its script is not at hand."""

from tollgate.cli.main import main

if __name__ == "__main__":
    main()
