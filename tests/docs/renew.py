"""Write what the result files say now into the documents: figures, and tables of studies."""

from tests.docs import figures, studies


def main():
    for document in figures.DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        new = studies.renewed(text) if document == studies.DOCUMENT else text
        if (new := figures.renewed(new)) != text:
            document.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
