"""What layers multiply: weights as rows, inputs as columns, second moments of these, and the error feedback of them."""
