"""Testing beyond one pass over each image: several views of it, and predictions kept in files."""
