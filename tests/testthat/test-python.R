test_that("the Python part is installed, in the same version", {
  expect_true(file.exists(file.path(python_folder(), "adadelta", "__init__.py")))
  skip_without_keras()
  python <- reticulate::import_from_path("adadelta", python_folder())
  expect_identical(python$`__version__`, as.character(packageVersion("adadelta")))
})

test_that("the oldest versions are the same wherever they are stated", {
  # R CMD build wraps the field differently.
  needs <- gsub("\\s+", " ", packageDescription("adadelta")$SystemRequirements)
  expected <- sprintf(
    "Python (>= %s) with the Python packages keras (>= %s)",
    stated("PYTHON_MINIMUM"), stated("KERAS_MINIMUM")
  )
  expect_true(startsWith(needs, expected))
  project <- test_path("..", "..", "python", "pyproject.toml")
  skip_if_not(file.exists(project), "pyproject.toml is not part of the R package")
  lines <- trimws(readLines(project))
  expect_true(sprintf("requires-python = \">=%s\"", stated("PYTHON_MINIMUM")) %in% lines)
  expect_match(lines, sprintf("\"keras>=%s\"", stated("KERAS_MINIMUM")), fixed = TRUE, all = FALSE)
})

test_that("a package that lost its Python part says so", {
  error <- error_of(load_core(quote(f(x)), folder = withr::local_tempdir()))
  expect_s3_class(error, c("adadelta_error_python", "adadelta_error"))
  expect_match(conditionMessage(error), "inst/python/adadelta", fixed = TRUE)
  expect_identical(conditionCall(error), quote(f(x)))
})

test_that("neither library() nor keras_available() starts Python", {
  skip_without_keras()
  lines <- run_in_child(c(
    "cat(reticulate::py_available(), '\\n')",
    "cat(keras_available(), reticulate::py_available(), '\\n')",
    "invisible(optimizer_adadelta())",
    "cat(keras_available(), reticulate::py_available(), '\\n')"
  ))
  expect_identical(trimws(lines), c("FALSE", "TRUE FALSE", "TRUE TRUE"))
})

test_that("a Python that does not exist is an error that says what to do", {
  skip_on_cran()
  lines <- run_in_child(c(
    "cat(keras_available(), '\\n')",
    "error <- tryCatch(optimizer_adadelta(rho = 2), adadelta_error_python = identity)",
    "print(conditionCall(error))",
    "cat(conditionMessage(error))"
  ), RETICULATE_PYTHON = "/nonexistent/python")
  expect_identical(trimws(lines[1:2]), c("FALSE", "optimizer_adadelta(rho = 2)"))
  expect_match(lines[[3]], "^R found no Python: .*/nonexistent/python")
  expect_match(lines[[4]], "RETICULATE_PYTHON", fixed = TRUE)
  expect_length(lines, 4)
})

# Messages of a session whose Python has only these made-up modules.
complaint <- function(modules, ...) {
  python <- local_python(modules)
  lines <- run_in_child(c(
    "cat(keras_available(), '\\n')",
    "error <- tryCatch(optimizer_adadelta(), adadelta_error_python = identity)",
    "cat(keras_available(), '\\n')",
    "cat(conditionMessage(error))"
  ), RETICULATE_PYTHON = python, ...)
  expect_identical(trimws(lines[1:2]), c("FALSE", "FALSE"))
  gsub(python, "PYTHON", lines[-(1:2)], fixed = TRUE)
}

test_that("a Python without Keras, or without what Keras needs, is such an error too", {
  skip_without_keras()
  install <- "Call install_adadelta(), or in a terminal: PYTHON -m pip install"
  keras <- paste0("\"keras>=", stated("KERAS_MINIMUM"), "\"")
  expect_identical(complaint(character()), c(
    "Keras is not installed in PYTHON.",
    paste(install, keras, "jax numba safetensors")
  ))
  expect_identical(complaint(c(keras = "2.15.0")), c(
    paste("Keras 2.15.0 is too old in PYTHON:", stated("KERAS_MINIMUM"),
          "or newer is needed."),
    paste(install, keras)
  ))
  expect_identical(complaint(c(keras = "99.0"), KERAS_BACKEND = ""), c(
    "Keras has nothing to compute with in PYTHON.",
    paste(install, "jax")
  ))
  expect_identical(complaint(c(keras = "99.0", jax = "1.0"), KERAS_BACKEND = "torch"), c(
    "Keras is to compute with \"torch\", which is not installed in PYTHON.",
    paste("Set KERAS_BACKEND=jax, or install torch.", install, "torch")
  ))
})

test_that("a Python that is too old is such an error, and loads nothing that it can't", {
  skip_without_keras()
  installation <- reticulate::import("adadelta.installation")
  newest <- installation$PYTHON_MINIMUM
  installation$PYTHON_MINIMUM <- "99.0"
  on.exit(installation$PYTHON_MINIMUM <- newest)
  error <- error_of(load_core(quote(f(x))))
  expect_s3_class(error, c("adadelta_error_python", "adadelta_error"))
  expect_match(conditionMessage(error), "and 99.0 or newer is needed", fixed = TRUE)
  expect_false(keras_available())
})

test_that("a Python that is asked runs with its own libraries, and the session's stay", {
  skip_without_keras()
  withr::local_envvar(LD_LIBRARY_PATH = "/nowhere")
  python <- reticulate::py_config()$python
  asked <- ask_python(python, "print(sys.version.split()[0], sys.argv[2])", "a word")
  expect_identical(asked$status, 0L)
  version <- reticulate::import("platform")$python_version()
  expect_identical(asked$lines, paste(version, "a word"))
  expect_identical(Sys.getenv("LD_LIBRARY_PATH"), "/nowhere")
  expect_identical(ask_python("/nonexistent/python", "")$status, 127L)
})

test_that("a Keras that breaks when it is loaded is such an error too", {
  skip_without_keras()
  python <- local_python(c(keras = "99.0", jax = "1.0"))
  lines <- run_in_child(c(
    "error <- tryCatch(optimizer_adadelta(), adadelta_error_python = identity)",
    "cat(conditionMessage(error))"
  ), RETICULATE_PYTHON = python, KERAS_BACKEND = "jax")
  expect_match(lines[[1]], paste0("^Keras could not be loaded in ", python, ": "))
  expect_match(lines[[2]], "import keras", fixed = TRUE)
})

test_that("a NumPy that this reticulate can't use is a warning, once", {
  skip_without_keras()
  python <- local_python(c(numpy = "2.0.0"))
  lines <- run_in_child(c(
    "reticulate::py_config()",
    "warning <- tryCatch(adadelta:::check_numpy(quote(f(x))), adadelta_warning = identity)",
    "print(conditionCall(warning))",
    "cat(conditionMessage(warning))"
  ), RETICULATE_PYTHON = python)
  lines <- utils::tail(lines, 3)
  expect_identical(lines[[1]], "f(x)")
  expect_match(lines[[2]], "can't exchange arrays with NumPy 2.0.0", fixed = TRUE)
  expect_match(lines[[3]], "call install_adadelta()", fixed = TRUE)
})

test_that("a backend is chosen where none was, also when Keras is imported first", {
  skip_without_keras()
  lines <- run_in_child(c(
    "keras <- reticulate::import('keras')",
    "invisible(optimizer_adadelta())",
    "cat(keras$config$backend(), Sys.getenv('KERAS_BACKEND'), '\\n')"
  ), KERAS_BACKEND = NA)
  found <- strsplit(trimws(lines), " ")[[1]]
  expect_identical(found[[1]], found[[2]])
  expect_true(found[[1]] %in% c("jax", "tensorflow", "torch"))
})

test_that("an installation without the Python part fails, and says why", {
  source <- test_path("..", "..")
  skip_if_not(
    file.exists(file.path(source, "python", "adadelta")), "these are not the sources of the package"
  )
  copy <- file.path(withr::local_tempdir(), "adadelta")
  dir.create(file.path(copy, "inst"), recursive = TRUE)
  file.copy(file.path(source, c("DESCRIPTION", "NAMESPACE", "LICENSE", "R")), copy,
            recursive = TRUE)
  install <- function() {
    withr::local_envvar(R_LIBS = paste(.libPaths(), collapse = .Platform$path.sep))
    arguments <- c("CMD", "INSTALL", "--no-docs", "--no-test-load", "-l",
                   shQuote(withr::local_tempdir()), shQuote(copy))
    suppressWarnings(system2(file.path(R.home("bin"), "R"), arguments, TRUE, TRUE))
  }
  # As if the link had been checked out as a text file.
  dir.create(file.path(copy, "inst", "python"))
  writeLines("../../python/adadelta", file.path(copy, "inst", "python", "adadelta"))
  lines <- install()
  expect_identical(attr(lines, "status"), 1L)
  expect_match(lines, "lost the link inst/python/adadelta", all = FALSE, fixed = TRUE)
  unlink(file.path(copy, "inst", "python", "adadelta"))
  file.copy(file.path(source, "python", "adadelta"), file.path(copy, "inst", "python"),
            recursive = TRUE)
  expect_null(attr(install(), "status"))
})
