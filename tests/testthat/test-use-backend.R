test_that("a backend is one of three", {
  for (backend in list("theano", NA, 1, NULL, character(), c("jax", "torch"))) {
    error <- error_of(use_backend(backend))
    expect_s3_class(error, c("adadelta_error_argument", "adadelta_error"))
    words <- "must be \"jax\", \"tensorflow\" or \"torch\""
    expect_match(conditionMessage(error), words, fixed = TRUE)
    expect_identical(conditionCall(error), quote(use_backend(backend)))
  }
})

test_that("Keras takes the backend, before Python runs and after", {
  skip_without_keras()
  code <- c(
    "use_backend(found <- use_backend(Sys.getenv('TEST_BACKEND')))",
    "cat(found, reticulate::py_available(), '\\n')",
    "cat(reticulate::import('keras')$config$backend(), '\\n')",
    "use_backend(found)",
    "for (other in setdiff(c('jax', 'tensorflow', 'torch'), found)) {",
    "  error <- tryCatch(use_backend(other), adadelta_error_python = identity)",
    "  cat(conditionMessage(error), Sys.getenv('KERAS_BACKEND'), '\\n')",
    "}"
  )
  backend <- keras$config$backend()
  other <- setdiff(c("jax", "tensorflow", "torch"), backend)
  expected <- function(starts) {
    refusals <- lapply(other, function(it) {
      c(
        sprintf("Keras is already loaded with \"%s\".", backend),
        sprintf("Start R again and call use_backend(\"%s\") first. %s", it, backend)
      )
    })
    c(paste(backend, starts), backend, unlist(refusals))
  }
  lines <- run_in_child(code, KERAS_BACKEND = NA, TEST_BACKEND = backend)
  expect_identical(trimws(lines), expected(FALSE))
  # An earlier, different choice does not matter.
  started <- c("reticulate::py_config()", code)
  lines <- run_in_child(started, KERAS_BACKEND = other[[1]], TEST_BACKEND = backend)
  expect_identical(utils::tail(trimws(lines), 6), expected(TRUE))
})

test_that("a backend that is not installed is an error, and nothing has changed", {
  skip_without_keras()
  python <- local_python(c(keras = "99.0", jax = "1.0"))
  code <- c(
    "error <- tryCatch(use_backend('torch'), adadelta_error_python = identity)",
    "print(conditionCall(error))",
    "cat(conditionMessage(error), Sys.getenv('KERAS_BACKEND'), reticulate::py_available(), '\\n')",
    "cat(use_backend('jax'), Sys.getenv('KERAS_BACKEND'), '\\n')"
  )
  expected <- function(starts) {
    c(
      "use_backend(\"torch\")",
      paste0("Keras is to compute with \"torch\", which is not installed in ", python, "."),
      paste(
        "Call install_adadelta(), or in a terminal:", python,
        "-m pip install torch tensorflow", starts
      ),
      "jax jax"
    )
  }
  lines <- run_in_child(code, RETICULATE_PYTHON = python, KERAS_BACKEND = "tensorflow")
  expect_identical(trimws(lines), expected(FALSE))
  # Python prints its version and more first.
  lines <- run_in_child(
    c("invisible(reticulate::py_config())", code),
    RETICULATE_PYTHON = python, KERAS_BACKEND = "tensorflow"
  )
  expect_identical(trimws(lines), expected(TRUE))
})

test_that("a Python that does not exist, or does not work, is such an error", {
  code <- c(
    "error <- tryCatch(use_backend('jax'), adadelta_error_python = identity)",
    "cat(conditionMessage(error), '\\n')"
  )
  lines <- run_in_child(code, RETICULATE_PYTHON = "/nonexistent/python")
  expect_identical(lines[[1]], "R found no Python.")
})

test_that("the function of the same name in keras3 is called too, and its error is ours", {
  skip_without_keras()
  library <- withr::local_tempdir()
  source <- file.path(withr::local_tempdir(), "keras3")
  dir.create(file.path(source, "R"), recursive = TRUE)
  writeLines(c(
    "Package: keras3", "Version: 9.9", "Title: In Place of the Real One",
    "Description: For a test.", "License: none", "Author: none", "Maintainer: none <a@b.c>"
  ), file.path(source, "DESCRIPTION"))
  writeLines("export(use_backend)", file.path(source, "NAMESPACE"))
  writeLines(c(
    "use_backend <- function(backend, gpu = NA) {",
    "  if (backend == 'torch') stop('not with me')",
    "  cat('keras3 got', backend, gpu, '\\n')",
    "  Sys.setenv(KERAS_BACKEND = backend)",
    "}"
  ), file.path(source, "R", "use-backend.R"))
  utils::install.packages(
    source, library, repos = NULL, type = "source", quiet = TRUE, INSTALL_opts = "--no-docs"
  )
  python <- local_python(c(keras = "99.0", jax = "1.0", torch = "1.0"))
  lines <- run_in_child(
    c(
      sprintf("loadNamespace('keras3', lib.loc = %s)", deparse(library)),
      "use_backend('jax', gpu = FALSE)",
      "error <- tryCatch(use_backend('torch'), adadelta_error_python = identity)",
      "cat(conditionMessage(error), Sys.getenv('KERAS_BACKEND'), '\\n')"
    ),
    RETICULATE_PYTHON = python
  )
  lines <- grep("keras3 got|not with me", trimws(lines), value = TRUE)
  expect_identical(lines, c("keras3 got jax FALSE", "not with me jax"))
})

test_that("GPUs are hidden and shown again, before Python runs and after", {
  skip_without_keras()
  variables <- "c('CUDA_VISIBLE_DEVICES', 'HIP_VISIBLE_DEVICES', 'JAX_PLATFORMS')"
  code <- c(
    sprintf("shown <- function() cat('>', Sys.getenv(%s, 'none'), '\\n')", variables),
    "environ <- function() cat('>', reticulate::py_eval(",
    "  '__import__(\"os\").environ.get(\"CUDA_VISIBLE_DEVICES\", \"none\")'), '\\n')",
    "backend <- Sys.getenv('KERAS_BACKEND')",
    "use_backend(backend, gpu = FALSE); shown()",
    "use_backend(backend); shown()",
    "environ()",
    "use_backend(backend, gpu = TRUE); shown(); environ()",
    "use_backend(backend, gpu = FALSE); environ()",
    "invisible(optimizer_adadelta())",
    "use_backend(backend)",
    "error <- tryCatch(use_backend(backend, TRUE), adadelta_error_python = conditionMessage)",
    "cat('>', strsplit(error, '\\n')[[1]][[1]])"
  )
  lines <- run_in_child(
    code, KERAS_BACKEND = keras$config$backend(),
    CUDA_VISIBLE_DEVICES = NA, HIP_VISIBLE_DEVICES = NA, JAX_PLATFORMS = NA
  )
  hidden <- "-1 -1 cpu"
  none <- "none none none"
  expect_identical(trimws(sub("^> ", "", grep("^> ", lines, value = TRUE))), c(
    hidden, hidden, "-1", none, "none", "-1",
    "Keras is already loaded, and has chosen its devices."
  ))
  for (bad in list("yes", NULL, 1, c(TRUE, FALSE))) {
    expect_error(use_backend("jax", gpu = bad), "`gpu` must be TRUE, FALSE or NA",
                 class = "adadelta_error_argument")
  }
})
