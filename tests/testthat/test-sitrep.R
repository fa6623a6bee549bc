subjects <- c(
  "adadelta", "R", "reticulate", "Python", "NumPy", "Keras", "backend", "kernel", "saved state"
)

test_that("all that is there is found, without starting Python, and the same once it runs", {
  skip_without_keras()
  lines <- run_in_child(c(
    "before <- adadelta_sitrep()",
    "cat(reticulate::py_available(), '\\n')",
    "print(before)",
    "invisible(optimizer_adadelta())",
    "after <- adadelta_sitrep()",
    "is_backend <- after$subject == 'backend'",
    "cat(all.equal(before[!is_backend, ], after[!is_backend, ]), after$found[is_backend], '\\n')"
  ))
  expect_identical(trimws(lines[[1]]), "FALSE")
  expect_identical(lines[[11]], "All is there.")
  expect_match(lines[[12]], paste0("^TRUE ", keras$config$backend(), " .*\\(in use\\)"))
})

test_that("there is a row for each subject, in the order of Python's own", {
  skip_without_keras()
  found <- adadelta_sitrep()
  expect_s3_class(found, c("adadelta_sitrep", "data.frame"), exact = TRUE)
  expect_named(found, c("subject", "fine", "found", "needed", "problem", "cure"))
  expect_identical(found$subject, subjects)
  expect_identical(found$subject[-(1:3)], python_subjects)
  expect_identical(is.na(found$problem), found$fine)
  expect_identical(found$needed, !subjects %in% c("kernel", "saved state"))
})

test_that("the home folder is shown as a tilde", {
  skip_on_os("windows")
  code <- "cat(adadelta_sitrep()$found[[2]], '\\n')"
  shown <- function(home) trimws(run_in_child(code, HOME = home)[[1]])
  folder <- R.home()
  above <- dirname(folder)
  expect_match(shown(above), paste0(" at ~/", basename(folder), "$"))
  # Neither a folder whose name only begins alike, nor the root.
  for (home in c(substr(above, 1, nchar(above) - 1), "/")) {
    expect_match(shown(home), paste0(" at ", folder, "$"))
  }
})

# Messages of a session whose Python has only these made-up modules.
report <- function(modules, ..., python = local_python(modules, parent.frame())) {
  lines <- run_in_child(c(
    "found <- adadelta_sitrep()",
    "cat(found$fine, '\\n')",
    "print(found)"
  ), RETICULATE_PYTHON = python, ...)
  gsub(python, "PYTHON", lines, fixed = TRUE)
}

test_that("what is missing is told with its cure", {
  skip_without_keras()
  lines <- report(character(), KERAS_BACKEND = "torch")
  expect_identical(
    trimws(lines[[1]]), "TRUE TRUE TRUE TRUE FALSE FALSE FALSE FALSE FALSE"
  )
  text <- paste(lines, collapse = "\n")
  keras <- paste0("PYTHON -m pip install \"keras>=", stated("KERAS_MINIMUM"), "\" jax numba")
  for (words in c(
    keras, "Call install_adadelta(), or in a terminal: PYTHON -m pip install torch",
    "PYTHON -m pip install numpy",
    "PYTHON -m pip install safetensors", "NumPy       missing", "kernel      none",
    "install_adadelta() makes a Python environment"
  )) expect_match(text, words, fixed = TRUE)
})

test_that("what is only slower or less is told apart from what is needed", {
  skip_without_keras()
  modules <- c(keras = "99.0", jax = "1.0", numpy = "1.26.4")
  lines <- report(modules, KERAS_BACKEND = "jax")
  expect_identical(trimws(lines[[1]]), "TRUE TRUE TRUE TRUE TRUE TRUE TRUE FALSE FALSE")
  expect_identical(
    utils::tail(lines, 1), "All is there that optimizer_adadelta() needs."
  )
})

test_that("a NumPy that is too new for reticulate is told", {
  row <- sitrep_row("NumPy", "2.3.1")
  told <- with_reticulate(row)
  if (knows_numpy_2()) {
    expect_identical(told, row)
  } else {
    expect_false(told$fine)
    expect_match(told$problem, "can't exchange arrays with NumPy 2.3.1", fixed = TRUE)
    expect_match(told$cure, "call install_adadelta()", fixed = TRUE)
  }
  old <- sitrep_row("NumPy", "1.26.4")
  expect_identical(with_reticulate(old), old)
  missing <- sitrep_row("NumPy", "", problem = c("cause", "cure"))
  expect_identical(with_reticulate(missing), missing)
})

test_that("it does not fail without a Python, or with one that does not work", {
  found <- rows_of_lines(character(), "/nowhere/python")
  expect_length(found, length(python_subjects))
  expect_false(found[[1]]$fine)
  expect_match(found[[1]]$problem, "/nowhere/python does not work")
  expect_true(is.na(found[[2]]$fine))

  skip_on_cran()
  lines <- report(python = "/nonexistent/python")
  expect_identical(trimws(lines[[1]]), "TRUE TRUE TRUE FALSE NA NA NA NA NA")
  expect_match(lines[[5]], "Python +missing")
  expect_match(lines[[6]], "R found no Python")
})

test_that("what Python's packages print beside is left out", {
  lines <- c("warning: a\tb", "Python\t3.12 at p\tTrue\t\t\tend", "kernel\tnone\t\tslow\tcure\tend")
  rows <- rows_of_lines(lines, "p")
  expect_length(rows, 2)
  expect_identical(rows[[1]], sitrep_row("Python", "3.12 at p"))
  expect_identical(rows[[2]], sitrep_row("kernel", "none", FALSE, c("slow", "cure")))
})

test_that("an environment that reticulate will make is told as such", {
  skip_if_not(is.function(py_require()), "this reticulate makes no environments of its own")
  lines <- run_in_child(
    c("cat(format(adadelta_sitrep()), sep = '\\n')", "use_backend('torch')",
      "cat(adadelta_sitrep()$fine[[4]], '\\n')",
      # As if it could not be made.
      "the <- getFromNamespace('the', 'adadelta')",
      "the$failure_of_python <- 'no network'",
      "found <- adadelta_sitrep()",
      "cat(found$fine[[4]], found$problem[[4]], '\\n')",
      "cat(reticulate::py_require()$packages, reticulate::py_available(), '\\n')"),
    RETICULATE_PYTHON = NA, RETICULATE_USE_MANAGED_VENV = NA, KERAS_BACKEND = "jax",
    WORKON_HOME = withr::local_tempdir(), VIRTUAL_ENV = NA
  )
  expect_match(lines[[4]], "^[?] Python +reticulate will make an environment .*jax")
  told <- trimws(utils::tail(lines, 3)[1:2])
  expect_identical(told, c("NA", "FALSE R found no Python: no network."))
  expect_match(utils::tail(lines, 1), "keras.*torch.*FALSE")
  expect_no_match(utils::tail(lines, 1), "jax")
})

test_that("it can be printed without cli", {
  found <- structure(
    sitrep_row("Keras", "", problem = c("Keras is missing.", "Install it.")),
    class = c("adadelta_sitrep", "data.frame")
  )
  lines <- format(found)
  expect_match(lines[[1]], "Keras missing$")
  expect_identical(trimws(lines[2:3]), c("Keras is missing.", "Install it."))
  expect_output(expect_identical(print(found), found), "Keras is missing.", fixed = TRUE)
})
