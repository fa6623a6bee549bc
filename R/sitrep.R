#' Show what is installed and what is missing
#'
#' Checks everything that [optimizer_adadelta()] needs: R, reticulate, Python,
#' NumPy, Keras, its backend, and the packages that make it fast and save its
#' state. For each problem it says what to do. It never fails and does not start
#' Python in this session: if Python is not running, it starts a separate
#' process, which can take some seconds. At the command line, use `python -m
#' adadelta info`.
#'
#' @return A data frame of class `adadelta_sitrep` with a row for each `subject`:
#'   whether it is `fine` (`NA` if it could not be checked), what was `found`
#'   (with `~` for your home folder), whether it is `needed` (without the others
#'   the optimizer works, but slower, or without saving its state), and the
#'   `problem` and its `cure`, or `NA`. `print()` returns it, invisibly; `format()`
#'   returns the lines that `print()` shows.
#' @seealso [install_adadelta()], [use_backend()], [keras_available()] for
#'   `TRUE` or `FALSE`.
#' @export
#' @examples
#' adadelta_sitrep()
#'
#' # Is all there that is needed?
#' found <- adadelta_sitrep()
#' all(found$fine[found$needed])
adadelta_sitrep <- function() {
  rows <- c(list(row_of_package(), row_of_r(), row_of_reticulate()), rows_of_python())
  rows <- do.call(rbind, rows)
  structure(rows, class = c("adadelta_sitrep", "data.frame"), row.names = seq_len(nrow(rows)))
}

sitrep_row <- function(subject, found, needed = TRUE, problem = NULL, fine = is.null(problem)) {
  data.frame(
    subject = subject,
    fine = fine,
    found = found,
    needed = needed,
    problem = c(problem, NA_character_)[[1]],
    cure = c(problem, NA_character_, NA_character_)[[2]]
  )
}

row_of_package <- function() {
  version <- as.character(utils::packageVersion("adadelta"))
  sitrep_row("adadelta", version, problem = missing_python_part())
}

row_of_r <- function() {
  sitrep_row("R", paste(getRversion(), "at", with_tilde(R.home())))
}

# As Python's part shows the path of Python.
with_tilde <- function(path) {
  home <- sub("/$", "", path.expand("~"))
  is_inside <- nzchar(home) && startsWith(path, paste0(home, "/"))
  if (is_inside) paste0("~", substring(path, nchar(home) + 1)) else path
}

row_of_reticulate <- function() {
  sitrep_row("reticulate", as.character(utils::packageVersion("reticulate")))
}

# The subjects that Python checks, in its order; a test compares the names.
python_subjects <- c("Python", "NumPy", "Keras", "backend", "kernel", "saved state")

rows_of_python <- function() {
  if (!is.null(missing_python_part())) return(unknown_rows(python_subjects))
  installation <- running_installation()
  if (!is.null(installation)) {
    return(rows_of_lines(installation$checks_in_lines(), reticulate::py_config()$python))
  }
  config <- discover_config()
  if (makes_its_own_python(config) && is.null(the$failure_of_python)) {
    # Whether that works, which takes a network, is known only when it is made.
    planned <- paste(
      "reticulate will make an environment when it is first used, with",
      paste(py_require()()$packages, collapse = ", ")
    )
    return(c(
      list(sitrep_row("Python", planned, fine = NA)), unknown_rows(python_subjects[-1])
    ))
  }
  if (is.null(config) || !is.null(the$failure_of_python)) {
    missing <- sitrep_row("Python", "", problem = no_python(the$failure_of_python))
    return(c(list(missing), unknown_rows(python_subjects[-1])))
  }
  asked <- ask_python(config$python, "print(*installation.checks_in_lines(), sep='\\n')")
  rows_of_lines(asked$lines, config$python)
}

# Parses the lines of `checks_in_lines()`: fields between tabs, the last of them "end". Other output
# of Python and its packages is left out.
rows_of_lines <- function(lines, python) {
  fields <- strsplit(lines, "\t", fixed = TRUE)
  fields <- Filter(function(row) length(row) == 6 && row[[6]] == "end", fields)
  found <- lapply(fields, function(row) {
    problem <- row[4:5][nzchar(row[4:5])]
    sitrep_row(row[[1]], row[[2]], row[[3]] == "True", if (length(problem)) problem)
  })
  if (!length(found)) {
    broken <- c(
      paste0(python, " does not work, or is too old to be asked."),
      "See install_adadelta(), or name another in the environment variable RETICULATE_PYTHON."
    )
    return(c(list(sitrep_row("Python", python, problem = broken)),
             unknown_rows(python_subjects[-1])))
  }
  lapply(found, function(row) if (row$subject == "NumPy") with_reticulate(row) else row)
}

# NumPy is fine only with a reticulate that supports it.
with_reticulate <- function(row) {
  is_old <- startsWith(row$found, "1.") || !grepl("^[0-9]", row$found)
  if (row$fine && !is_old && !knows_numpy_2()) {
    sitrep_row(row$subject, row$found, problem = numpy_too_new(row$found))
  } else {
    row
  }
}

unknown_rows <- function(subjects) {
  lapply(subjects, function(subject) {
    needed <- !subject %in% c("kernel", "saved state")
    sitrep_row(subject, "not looked at", needed, fine = NA)
  })
}

#' @rdname adadelta_sitrep
#' @param x The return value of `adadelta_sitrep()`.
#' @param ... Not used.
#' @export
format.adadelta_sitrep <- function(x, ...) {
  marks <- sitrep_marks()
  kind <- ifelse(is.na(x$fine), "unknown", ifelse(x$fine, "fine", ifelse(x$needed, "bad", "slow")))
  found <- ifelse(nzchar(x$found), x$found, "missing")
  heads <- paste(marks[kind], format(x$subject), found)
  more <- lapply(seq_len(nrow(x)), function(i) {
    lines <- c(x$problem[[i]], x$cure[[i]])
    # Aligned with `found`, behind the mark, a blank, the subject and a blank.
    paste0(strrep(" ", max(nchar(x$subject)) + 3), lines[!is.na(lines)], recycle0 = TRUE)
  })
  lines <- unlist(Map(c, heads, more), use.names = FALSE)
  c(lines, sitrep_conclusion(x))
}

sitrep_conclusion <- function(x) {
  needed <- x$fine[x$needed]
  if (isTRUE(all(x$fine))) return("All is there.")
  if (isTRUE(all(needed))) return("All is there that optimizer_adadelta() needs.")
  if (any(!needed, na.rm = TRUE)) {
    "install_adadelta() makes a Python environment with all that is needed."
  }
}

#' @rdname adadelta_sitrep
#' @export
print.adadelta_sitrep <- function(x, ...) {
  cat(format(x), sep = "\n")
  invisible(x)
}

sitrep_marks <- function() {
  if (!requireNamespace("cli", quietly = TRUE)) {
    return(c(fine = "+", slow = "!", bad = "x", unknown = "?"))
  }
  c(
    fine = cli::col_green(cli::symbol$tick),
    slow = cli::col_yellow("!"),
    bad = cli::col_red(cli::symbol$cross),
    unknown = cli::col_grey("?")
  )
}
