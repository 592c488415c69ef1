"""The version of the suite, and the error about files of another one."""

VERSION = "0.3.0"


def not_readable(what: str, writer: str | None) -> str:
    """The error about a file whose format this version does not read.

    Args:
        what: The file, which begins the sentence.
        writer: The version that wrote it, if the file names it; 0.1.0 did not in every file.
    """
    writer = writer or "0.1.0"
    return (
        f"{what} was written by rlkit-suite {writer} in a format that rlkit-suite {VERSION} does "
        f"not read; read it with rlkit-suite {writer}"
    )
