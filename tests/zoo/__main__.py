"""Print what becomes of every animal of the zoo, as the Markdown table of docs/inputs.md."""

from tests.zoo.animal import fate_of, open_processor
from tests.zoo.table import animals, table

if __name__ == "__main__":
    processor = open_processor()
    print(table(animals(), lambda animal: fate_of(animal, processor)))
