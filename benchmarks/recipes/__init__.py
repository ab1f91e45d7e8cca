"""How each model of the zoo is fetched and prepared; one model a file."""
