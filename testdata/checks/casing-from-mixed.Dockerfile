FrOm scratch As a
