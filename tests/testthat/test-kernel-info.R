# What the kernels report about themselves, and that they make the step.

test_that("every kernel says whether it serves, and why not", {
  skip_without_keras()
  info <- kernel_info()
  expect_s3_class(info, "data.frame")
  expect_true(all(c("cpu", "xla", "tensorflow") %in% info$kernel))
  expect_type(info$serves, "logical")
  expect_identical(is.na(info$reason), info$serves)
  expect_true(all(nzchar(info$description)))
})

test_that("a kernel is kept where nobody else can write, or it is said why it is not kept", {
  skip_without_keras()
  info <- kernel_info()
  cpu <- info[info$kernel == "cpu", ]
  skip_if_not(cpu$serves, "no kernel on this machine")
  expect_true(xor(is.na(cpu$cache), is.na(cpu$cache_reason)))
  skip_on_os("windows")
  folder <- withr::local_tempdir()
  Sys.chmod(folder, "0777", use_umask = FALSE)
  # Python read the environment when it started. Only this variable may change: reticulate had set
  # others while Python started, and these must not come back.
  environ <- reticulate::import("os")$environ
  before <- environ$get("ADADELTA_KERNEL_CACHE")
  withr::defer(if (is.null(before)) {
    environ$pop("ADADELTA_KERNEL_CACHE", NULL)
  } else {
    environ$update(list(ADADELTA_KERNEL_CACHE = before))
  })
  environ$update(list(ADADELTA_KERNEL_CACHE = folder))
  info <- kernel_info()
  cpu <- info[info$kernel == "cpu", ]
  expect_identical(cpu$cache, NA_character_)
  expect_match(cpu$cache_reason, paste("other users can write to", folder), fixed = TRUE)
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
  # Three steps in float32, which the two may round differently.
  expect_equal(weights(TRUE), weights(FALSE), tolerance = 1e-6)
})

test_that("an optimizer says what makes the step of each variable, and why no kernel does", {
  skip_without_keras()
  columns <- c("variable", "shape", "dtype", "device", "engine", "reason")
  optimizer <- optimizer_adadelta()
  expect_named(kernel_info(optimizer), columns)
  expect_identical(nrow(kernel_info(optimizer)), 0L)
  variables <- list(
    keras$Variable(matrix(0, 2, 3), name = "weights", dtype = "float32"),
    keras$Variable(0, name = "bias", dtype = "float16")
  )
  optimizer$build(variables)
  table <- kernel_info(optimizer)
  expect_identical(table$variable, c("weights", "bias"))
  expect_identical(table$shape, c("2x3", "scalar"))
  expect_identical(table$dtype, c("float32", "float16"))
  skip_if_not(any(kernel_info()$serves), "no kernel on this machine")
  expect_identical(table$reason, c(NA_character_, NA_character_))
  plain <- optimizer_adadelta(fused = FALSE)
  plain$build(variables)
  expect_identical(kernel_info(plain)$reason, rep("`fused` is False", 2))
  expect_identical(kernel_info(keras$optimizers$LossScaleOptimizer(plain)), kernel_info(plain))
  expect_error(kernel_info("adam"), "received \"adam\"", class = "adadelta_error")
  expect_error(
    kernel_info(keras$optimizers$SGD()), "must be one made by optimizer_adadelta",
    class = "adadelta_error"
  )
})
