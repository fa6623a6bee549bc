# R functions that Python calls: learning rates, what callbacks show, and warnings. A handler
# outside of the call into Python, such as that of `tryCatch(model$fit(...), warning = )`, would
# jump in C over Python's frames, and Python would crash later. So nothing jumps from here:
# conditions wait until the call into Python has returned.

# Signals a warning of Python about a loaded model, with the call of the user.
warn_of_state <- function(message) {
  called_by_python(defer(own_warning(sentence(message), call_into_python(), "state")))
}

# Runs code for Python and returns how it ended: "value", "error", "interrupt", or "jump" when a
# handler outside would have ended it.
called_by_python <- function(code) {
  answer <- NULL
  last <- NULL
  may_leave <- FALSE
  # A return from an exit handler stops any jump here, whatever its target.
  on.exit({
    if (is.null(answer) && !may_leave) return(ended("jump", last, "it was left by a jump"))
  })
  answer <- tryCatch(
    withCallingHandlers(
      list(kind = "value", value = code),
      warning = function(warning) if (defer(warning)) tryInvokeRestart("muffleWarning"),
      message = pass_on_message,
      condition = function(condition) last <<- condition
    ),
    error = function(error) ended("error", as_own_error(error), conditionMessage(error)),
    interrupt = function(interrupt) {
      # A newer reticulate also tells Python of the interrupt and must raise it there: without that,
      # the next `fit()` crashed in two of three sessions.
      may_leave <<- TRUE
      tryInvokeRestart("raise_py_exception", "KeyboardInterrupt")
      ended("interrupt", interrupt, "it was interrupted")
    }
  )
  answer
}

ended <- function(kind, condition, message) {
  waits <- inherits(condition, "condition") && defer(condition)
  list(kind = kind, message = enc2utf8(message), waits = waits)
}

# Messages are shown at once, unless a handler would jump out with one.
pass_on_message <- function(condition) {
  try_handlers <- function() {
    how <- NULL
    on.exit(if (is.null(how)) return("left"))
    how <- withRestarts(
      {
        signalCondition(condition)
        "not muffled"
      },
      muffleMessage = function() "muffled"
    )
    how
  }
  how <- try_handlers()
  if (how == "not muffled") cat(conditionMessage(condition), file = stderr())
  if (how == "left" && !defer(condition)) return(invisible())
  tryInvokeRestart("muffleMessage")
}

as_own_error <- function(error) {
  if (!inherits(error, "adadelta_error")) {
    class(error) <- c("adadelta_error_function", "adadelta_error", class(error))
  }
  error
}

# Keeps a condition until the call into Python has returned. Returns whether there is such a call:
# there is none if Python itself started R.
defer <- function(condition) {
  frame <- frame_that_entered_python()
  if (is.null(frame)) return(FALSE)
  if (!identical(the$deferred$frame, frame)) {
    the$deferred <- new.env(parent = emptyenv())
    the$deferred$frame <- frame
    do.call(on.exit, list(as.call(list(signal_deferred, the$deferred)), add = TRUE), envir = frame)
  }
  the$deferred$conditions <- c(the$deferred$conditions, list(condition))
  TRUE
}

# In one loop: once a handler jumps out with a condition, the others are dropped, as without Python.
signal_deferred <- function(deferred) {
  if (identical(the$deferred, deferred)) the$deferred <- NULL
  for (condition in deferred$conditions) {
    if (inherits(condition, "interrupt")) {
      signalCondition(condition)
      invokeRestart("abort")
    }
    signal <- if (inherits(condition, "error")) {
      stop
    } else if (inherits(condition, "warning")) {
      warning
    } else if (inherits(condition, "message")) {
      message
    } else {
      signalCondition
    }
    signal(condition)
  }
}

frame_that_entered_python <- function() {
  number <- number_of_entry()
  if (length(number)) sys.frame(number)
}

# The user's call that led into Python, or NULL if it called a function without a name.
call_into_python <- function() {
  number <- number_of_entry()
  if (!length(number)) return(NULL)
  while (number > 1 && is_ours_or_of_reticulate(sys.function(number - 1))) number <- number - 1
  call <- sys.call(number)
  if (!is.function(call[[1]])) call
}

# The number of the outermost frame from which R called C++ and Python. No Python frame is below it.
number_of_entry <- function() {
  numbers <- seq_len(sys.nframe())
  Find(function(number) enters_python(sys.function(number)), numbers)
}

enters_python <- function(fun) {
  identical(topenv(environment(fun)), asNamespace("reticulate")) &&
    ".Call" %in% all.names(body(fun))
}

is_ours_or_of_reticulate <- function(fun) {
  getNamespaceName(topenv(environment(fun))) %in% c("reticulate", "adadelta")
}
