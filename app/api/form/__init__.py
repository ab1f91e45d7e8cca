"""A model and samples as a form: received, checked as far as that is quick, and queued as a job."""
