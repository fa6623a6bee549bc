# What the kernels say of themselves, and that they make the step.

test_that("every kernel says whether it serves, and why not", {
  skip_without_keras()
  info <- kernel_info()
  expect_s3_class(info, "data.frame")
  expect_true(all(c("cpu", "xla", "tensorflow") %in% info$kernel))
  expect_type(info$serves, "logical")
  expect_identical(is.na(info$reason), info$serves)
  expect_true(all(nzchar(info$description)))
})

test_that("it needs Python alone, and loads no Keras", {
  skip_without_keras()
  code <- c(
    "found <- kernel_info()",
    "loaded <- reticulate::py_eval(\"'keras' in __import__('sys').modules\")",
    "cat(is.data.frame(found), loaded, any(found$serves), '\\n')"
  )
  expect_identical(trimws(run_in_child(code)), "TRUE FALSE TRUE")
  expect_identical(
    trimws(run_in_child(code, RETICULATE_PYTHON = local_python())), "TRUE FALSE FALSE"
  )
})

test_that("the step of a model is made by the kernel, with the numbers of the rule", {
  skip_without_keras()
  weights <- function(fused) {
    x <- keras$Variable(matrix(c(1, -2, 3, 0.5), 2), name = "x")
    optimizer <- optimizer_adadelta(1, fused = fused)
    for (step in 1:3) {
      optimizer$apply(list(keras$ops$array(matrix(c(1, 0, -1, 2), 2))), list(x))
    }
    x$numpy()
  }
  # Three steps in float32, in which the two may round differently.
  expect_equal(weights(TRUE), weights(FALSE), tolerance = 1e-6)
})
