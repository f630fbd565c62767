"""Route search: which layers a slim verifier keeps."""
