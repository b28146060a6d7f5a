"""``study=demonstration``: epochs to an accuracy, as a demonstration in hardware counted them."""
