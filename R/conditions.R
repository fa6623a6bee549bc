# Every error of this package is of class "adadelta_error" and names the call that the user wrote.

# `...` are further fields of the condition.
fail <- function(message, kind, call, ...) {
  classes <- c(paste0("adadelta_error_", kind), "adadelta_error")
  stop(errorCondition(message, ..., class = classes, call = named_call(call)))
}

warn <- function(message, call) warning(own_warning(message, call))

own_warning <- function(message, call, kind = NULL) {
  classes <- c(paste0("adadelta_warning_", kind, recycle0 = TRUE), "adadelta_warning")
  warningCondition(message, class = classes, call = named_call(call))
}

# do.call() with a function puts the whole function where its name belongs.
named_call <- function(call, name = "optimizer_adadelta") {
  if (is.call(call) && is.function(call[[1]])) call[[1]] <- as.name(name)
  call
}

# Users call a method by the name of its generic, so errors show that name.
method_call <- function(call, generic) {
  call[[1]] <- as.name(generic)
  call
}

# A Python object that was saved with an R session comes back as a null pointer.
check_session <- function(object, call) {
  if (is_of_earlier_session(object)) {
    has_records <- inherits(object, c("adadelta.Monitor", class_of_history))
    text <- paste(
      "this is a Python object of an earlier session, which saveRDS() and save() do not keep;",
      if (has_records) {
        "keep as.data.frame() of it instead"
      } else {
        paste(
          "make it again, and keep optimizers with save_optimizer_state() and models with",
          "save_model_atomically()"
        )
      }
    )
    fail(text, "state", call)
  }
}

is_of_earlier_session <- function(object) {
  inherits(object, "python.builtin.object") && reticulate::py_is_null_xptr(object)
}
