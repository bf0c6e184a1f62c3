"""Steps that make a model smaller: fewer bits a weight."""
