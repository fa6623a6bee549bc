# Conversion of R values to Python values. Python checks and normalizes them, so nothing may be lost
# or changed on the way. reticulate alone would convert NA to True, NA_character_ to "NA",
# NA_integer_ to -2147483648, and a vector to a list. Such values are passed as `adadelta.r.Value`,
# which is shown as R code and which no check accepts.

as_python <- function(value) {
  if (is.null(value) || is_python(value)) {
    value
  } else if (is_plain_scalar(value)) {
    # Names and the dimension are dropped; strings are passed as UTF-8.
    if (is.character(value)) enc2utf8(as.vector(value)) else as.vector(unname(value))
  } else {
    the$module$Value(r_code(value))
  }
}

as_python_rate <- function(value, call) {
  if (is_serialized(value)) return(value)
  if (!is_rate_function(value)) return(as_python(value))
  rate <- rate_function(value, call)
  code <- function_code(value)
  # The function can return a wrong value at any step; the error names the call that gave it.
  refuse <- function(message) called_by_python(fail(sentence(message), "argument", call))
  takes_step <- length(formals(args(rate))) > 0
  the$core$Function(function(...) called_by_python(as_python(rate(...))), refuse, code, takes_step)
}

as_python_argument <- function(value, name, call) {
  if (name == "learning_rate") as_python_rate(value, call) else as_python_extra(value, name)
}

# get_config() may also return a list of the variables that are excluded from weight decay.
as_python_extra <- function(value, name) {
  if (name == "exclude_from_weight_decay" && is.list(value) && !is.object(value)) {
    value
  } else {
    as_python(value)
  }
}

is_python <- function(value) {
  inherits(value, "python.builtin.object") && !reticulate::py_is_null_xptr(value)
}

is_plain_scalar <- function(value) {
  # reticulate gives a NumPy array without dimensions one dimension.
  if (is.object(value) || length(dim(value)) > 1 || length(value) != 1) return(FALSE)
  switch(typeof(value),
    double = is.nan(value) || !is.na(value),
    logical = ,
    integer = ,
    character = !is.na(value),
    FALSE
  )
}

# Whether a value is a learning rate schedule in the form that get_config() returns.
is_serialized <- function(value) {
  is.list(value) && !is.object(value) && all(c("class_name", "config") %in% names(value))
}

# R functions, and formulas such as `~ 0.1 / (1 + .x)`, which purrr accepts as functions.
is_rate_function <- function(value) {
  (is.function(value) && !is_python(value)) || (inherits(value, "formula") && length(value) == 2)
}

# Returns a learning rate as a function without arguments or of the step, or signals an error.
rate_function <- function(value, call) {
  if (inherits(value, "formula")) return(function_of_formula(value))
  arguments <- formals(args(value))
  if (length(arguments) == 0) return(function() value())
  named <- arguments[names(arguments) != "..."]
  # An argument with a default counts only if there is no other.
  needed <- !nzchar(as.character(as.list(named)))
  is_of_one <- sum(needed) == 1 || length(named) == 1 || inherits(value, "rlang_lambda_function")
  if (is_of_one) return(function(step) value(step))
  takes <- if (length(named)) paste(length(named), "arguments") else "`...`"
  fail(paste0(
    "`learning_rate` must be a function without arguments, or of one, the number of steps so far; ",
    "this one takes ", takes, ": received ", shortened(function_code(value), 60L)
  ), "argument", call)
}

# As in purrr, the step is `.x`, `.` or `..1`.
function_of_formula <- function(formula) {
  made <- function(..., .x = ..1, . = ..1) NULL
  body(made) <- formula[[2]]
  environment(made) <- environment(formula)
  function(step) made(step)
}

r_code <- function(value) {
  if (is_of_earlier_session(value)) return("a Python object of an earlier session")
  if (is_python(value)) return(paste("a Python object of class", class(value)[[1]]))
  substr(in_one_line(deparse(value, width.cutoff = 500L, nlines = 2L)), 1L, 500L)
}

# The whole code, never cut short: all.equal() compares functions by it.
function_code <- function(value) in_one_line(deparse(value, width.cutoff = 500L))

in_one_line <- function(lines) enc2utf8(paste(trimws(lines), collapse = " "))

shortened <- function(text, width = 80L) {
  if (nchar(text) > width) paste0(substr(text, 1, width - 3), "...") else text
}

# Fails if an argument without a default was not given to the function that calls this. R itself
# would notice only at the first use, and would name the call of one of our own functions.
check_given <- function(call, kind = "argument") {
  frame <- parent.frame()
  arguments <- formals(sys.function(sys.parent()))
  needed <- names(arguments)[!nzchar(as.character(as.list(arguments)))]
  for (name in setdiff(needed, "...")) {
    if (eval(call("missing", as.name(name)), frame)) {
      fail(sprintf("argument \"%s\" is missing, with no default", name), kind, call)
    }
  }
}

# Returns the arguments in `...`. Each must have a name, and be given only once.
check_names <- function(extra, call) {
  names <- if (is.null(names(extra))) character(length(extra)) else names(extra)
  if (any(names == "")) {
    text <- paste(vapply(extra[names == ""], r_code, ""), collapse = ", ")
    fail(paste("arguments in `...` must be named; received", shortened(text)), "argument", call)
  }
  if (anyDuplicated(names)) {
    twice <- names[duplicated(names)][[1]]
    fail(sprintf("`%s` must be given only once", twice), "argument", call)
  }
  extra
}
