"""Write what the result files say now into the documents: figures, and the tables made of them."""

from tests.docs import figures, machines, studies

TABLES = {studies.DOCUMENT: studies.renewed, machines.DOCUMENT: machines.renewed}


def main():
    for document in figures.DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        new = TABLES[document](text) if document in TABLES else text
        if (new := figures.renewed(new)) != text:
            document.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
