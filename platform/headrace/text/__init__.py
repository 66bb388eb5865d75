"""What a word, line, paragraph and shingle is: one definition for every rule."""
