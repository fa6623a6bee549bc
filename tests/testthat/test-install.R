# These use wheels of made-up packages, so that the real reticulate and the real pip make a real
# environment without a network. The last test downloads the real packages.

# A folder of wheels, given as names with versions.
local_wheels <- function(packages, frame = parent.frame()) {
  folder <- withr::local_tempdir(.local_envir = frame)
  code <- paste(
    "import sys, zipfile",
    "folder, packages = sys.argv[1], sys.argv[2:]",
    "for package in packages:",
    "    name, version = package.split('=')",
    "    info = f'{name}-{version}.dist-info/'",
    "    with zipfile.ZipFile(f'{folder}/{name}-{version}-py3-none-any.whl', 'w') as wheel:",
    "        wheel.writestr(f'{name}/__init__.py', f'__version__ = {version!r}')",
    "        text = f'Metadata-Version: 2.1\\nName: {name}\\nVersion: {version}\\n'",
    "        wheel.writestr(info + 'METADATA', text)",
    "        text = 'Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n'",
    "        wheel.writestr(info + 'WHEEL', text)",
    "        wheel.writestr(info + 'RECORD', '')",
    sep = "\n"
  )
  script <- withr::local_tempfile(lines = code)
  arguments <- c(script, folder, paste0(names(packages), "=", packages))
  status <- system2(reticulate::py_config()$python, shQuote(arguments))
  stopifnot(status == 0)
  folder
}

all_wheels <- c(
  keras = "99.0", jax = "1.0", torch = "1.0", numba = "1.0", safetensors = "1.0", numpy = "1.99",
  wheel = "0.1", setuptools = "0.1"
)

# Output and messages of a session with these wheels, and with this folder for its environments.
install_in_child <- function(code, wheels, home) {
  base <- reticulate::py_config()$python
  run_in_child(
    c(
      sprintf("python <- %s", deparse(base)),
      "error_of <- function(code) cat('error:', conditionMessage(tryCatch({",
      "  code", "  simpleError('none')", "}, adadelta_error_python = identity)), '\\n')",
      code
    ),
    PIP_NO_INDEX = "1", PIP_FIND_LINKS = wheels, PIP_DISABLE_PIP_VERSION_CHECK = "1",
    WORKON_HOME = home, RETICULATE_VIRTUALENV_ROOT = home, RETICULATE_PYTHON = NA,
    RETICULATE_USE_MANAGED_VENV = "no", VIRTUAL_ENV = NA, KERAS_BACKEND = NA
  )
}

test_that("an environment is made, used at once, found by later sessions, and not changed", {
  skip_without_keras()
  skip_on_cran()
  skip_on_os("windows")
  home <- withr::local_tempdir()
  wheels <- local_wheels(all_wheels)
  own <- file.path(home, "r-adadelta", "bin", "python")
  lines <- install_in_child(c(
    "made <- install_adadelta(python = python)",
    "cat('returned', made, '\\n')",
    "cat('available', keras_available(), '\\n')",
    "cat('uses', reticulate::py_config()$python, '\\n')"
  ), wheels, home)
  for (words in c(
    "Making the Python environment \"r-adadelta\"", "This session uses it.",
    paste("returned", own), "available TRUE", paste("uses", own)
  )) expect_match(lines, words, fixed = TRUE, all = FALSE)

  lines <- install_in_child(c(
    "cat('available', keras_available(), '\\n')",
    "cat('uses', reticulate::py_config()$python, '\\n')",
    "error_of(use_backend('torch'))",
    "install_adadelta()",
    "error_of(install_adadelta('torch'))",
    "error_of(install_adadelta(extra_packages = 'torch'))",
    "error_of(install_adadelta('torch', existing = 'replace', python = python))",
    "install_adadelta('torch', existing = 'update')",
    "error_of(use_backend('torch'))"
  ), wheels, home)
  lines <- gsub(own, "PYTHON", lines, fixed = TRUE)
  told <- "^(available|uses|error:|The Python env|Start R|Python already)"
  told <- grep(told, lines, value = TRUE)
  expect_identical(trimws(told), c(
    "available TRUE",
    "uses PYTHON",
    "error: Keras is to compute with \"torch\", which is not installed in PYTHON.",
    "The Python environment \"r-adadelta\" has all that is needed.",
    "Start R again to use it.",
    "error: The Python environment \"r-adadelta\" exists and does not have all that is asked for.",
    "error: The Python environment \"r-adadelta\" exists and does not have all that is asked for.",
    "error: Python already runs in this session, PYTHON.",
    "Start R again, and call this first.",
    "The Python environment \"r-adadelta\" is ready.",
    "Start R again to use it.",
    "error: none"
  ))

  # Packages that were added before are missing in a new environment.
  lines <- install_in_child(c(
    "install_adadelta('jax', existing = 'replace', python = python)",
    "error_of(use_backend('torch'))"
  ), wheels, home)
  expect_match(lines, "Removing the Python environment", fixed = TRUE, all = FALSE)
  expect_match(lines, "error: Keras is to compute with \"torch\"", fixed = TRUE, all = FALSE)
})

test_that("what could not be completed is removed again, and the old one is kept", {
  skip_without_keras()
  skip_on_cran()
  skip_on_os("windows")
  home <- withr::local_tempdir()
  wheels <- local_wheels(all_wheels[c("keras", "numpy", "wheel", "setuptools")])
  lines <- install_in_child(
    "error_of(install_adadelta(envname = 'mine', python = python))", wheels, home
  )
  expect_match(lines, "error: The Python environment \"mine\" could not be made", fixed = TRUE,
               all = FALSE)
  expect_false(dir.exists(file.path(home, "mine")))
})

test_that("the packages are those that are stated, and an old NumPy for an old reticulate", {
  expect_identical(
    needed_packages(c("jax", "torch")),
    c(paste0("keras>=", stated("KERAS_MINIMUM")), "jax", "torch", stated("COMPANIONS"))
  )
  expect_identical(stated("BACKENDS"), c("jax", "tensorflow", "torch"))
  expect_identical(stated("COMPANIONS"), c("numba", "safetensors"))
})

test_that("a Python that is too old, or none, is an error before anything is made", {
  home <- withr::local_tempdir()
  withr::local_envvar(WORKON_HOME = home)
  # A script that reports Python 3.8.
  old <- withr::local_tempfile(lines = c("#!/bin/sh", "echo 3.8"))
  Sys.chmod(old, "755")
  skip_on_os("windows")
  for (python in c(old, "/nonexistent/python")) {
    error <- error_of(install_adadelta(envname = "mine", python = python))
    expect_s3_class(error, c("adadelta_error_python", "adadelta_error"))
    expect_match(conditionMessage(error), "`python` must be Python 3.11 or newer", fixed = TRUE)
    expect_match(conditionMessage(error), python, fixed = TRUE)
  }
  expect_length(dir(home), 0)
})

test_that("Pythons to start from are found, and fit", {
  skip_on_os("windows")
  folder <- withr::local_tempdir()
  script <- file.path(folder, "python3")
  writeLines(c("#!/bin/sh", "echo 3.12"), script)
  Sys.chmod(script, "755")
  withr::local_envvar(
    PATH = paste(folder, Sys.getenv("PATH"), sep = .Platform$path.sep), RETICULATE_PYTHON = NA
  )
  expect_true(script %in% starters("3.11", "3.13"))
  found <- find_starter(NULL, quote(f(x)))
  expect_true(serves(version_of_python(found), "3.11", NULL))
  expect_identical(find_starter(script, quote(f(x))), script)
})

test_that("it says so when R uses another Python, and how to use one of another name", {
  skip_without_keras()
  python <- local_python()
  withr::local_envvar(RETICULATE_PYTHON = "/other/python")
  home <- dirname(dirname(python))
  expect_message(expect_message(
    expect_identical(basename(use_environment(home)), "python"),
    "RETICULATE_PYTHON is \"/other/python\"", fixed = TRUE
  ), "use_virtualenv(", fixed = TRUE)
})

test_that("arguments are checked first", {
  refused <- function(words, ...) {
    error <- error_of(install_adadelta(...))
    expect_s3_class(error, c("adadelta_error_argument", "adadelta_error"))
    expect_match(conditionMessage(error), words, fixed = TRUE)
  }
  refused("`backend` must be \"jax\", \"tensorflow\" or \"torch\"; received \"theano\"", "theano")
  refused("`backend` must be", character())
  refused("`envname` must be a string", envname = "")
  refused("`envname` must be one string", envname = c("a", "b"))
  refused("`envname` must be a string", envname = 1)
  refused("`extra_packages` must be a string", extra_packages = NA_character_)
  refused("`python` must be a string", python = 3.11)
  refused("`existing` must be \"refuse\", \"update\" or \"replace\"", existing = "delete")
  if (!is.function(py_require())) refused("NULL needs 1.41 or newer", envname = NULL)
})

test_that("a folder that is no environment is left alone", {
  skip_without_keras()
  skip_on_cran()
  home <- withr::local_tempdir()
  writeLines("mine", file.path(home, "notes"))
  lines <- install_in_child(
    sprintf("error_of(install_adadelta(envname = %s, python = python))", deparse(home)),
    local_wheels(all_wheels), withr::local_tempdir()
  )
  expect_match(lines, "is no Python environment", all = FALSE)
  expect_identical(dir(home), "notes")
})

test_that("a new reticulate can install for the session", {
  skip_if_not(is.function(py_require()), "this reticulate makes no environments of its own")
  lines <- run_in_child(c(
    "install_adadelta('torch', envname = NULL, extra_packages = 'scipy')",
    "cat(reticulate::py_require()$packages, reticulate::py_available(), '\\n')"
  ), RETICULATE_PYTHON = NA, KERAS_BACKEND = NA)
  last <- utils::tail(lines, 1)
  expect_match(last, "torch.*scipy.*FALSE")
  expect_false(grepl("jax", last))
})

test_that("the real packages make an environment that trains", {
  skip_without_keras()
  wanted <- identical(Sys.getenv("ADADELTA_TEST_INSTALL"), "true")
  skip_if_not(wanted, "downloads hundreds of megabytes: set ADADELTA_TEST_INSTALL=true")
  home <- withr::local_tempdir()
  base <- reticulate::py_config()$python
  lines <- run_in_child(
    c(
      sprintf("install_adadelta(python = %s)", deparse(base)),
      "keras <- reticulate::import('keras')",
      "model <- keras$Sequential(list(keras$layers$Input(list(2L)), keras$layers$Dense(1L)))",
      "model$compile(optimizer = optimizer_adadelta(1), loss = 'mse')",
      "model$fit(matrix(1, 4, 2), matrix(1, 4, 1), epochs = 1L, verbose = 0L)",
      "cat('used', model$optimizer$iterations$numpy(), reticulate::py_config()$python, '\\n')",
      "found <- adadelta_sitrep()",
      "cat(found$fine, '\\n')"
    ),
    WORKON_HOME = home, RETICULATE_PYTHON = NA, VIRTUAL_ENV = NA, KERAS_BACKEND = NA,
    timeout = 900
  )
  expect_match(lines, paste("used 1", home), fixed = TRUE, all = FALSE)
  expect_identical(trimws(utils::tail(lines, 1)), paste(rep("TRUE", 9), collapse = " "))
})
