"""What is measured of an optimizer's loss: views of the Hessian, each reading with its evidence."""
