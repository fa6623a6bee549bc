library(testthat)
library(adadelta)

test_check("adadelta")
