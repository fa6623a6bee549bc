# Every error of this package is of class "adadelta_error" and names the call that the user wrote.

fail <- function(message, kind, call) {
  classes <- c(paste0("adadelta_error_", kind), "adadelta_error")
  stop(errorCondition(message, class = classes, call = named_call(call)))
}

warn <- function(message, call) {
  warning(warningCondition(message, class = "adadelta_warning", call = named_call(call)))
}

# do.call() with a function puts its whole body where the name belongs.
named_call <- function(call, name = "optimizer_adadelta") {
  if (is.call(call) && is.function(call[[1]])) call[[1]] <- as.name(name)
  call
}

# A message of Python in the words of R, except for what stands in quotes.
in_r_words <- function(text) {
  words <- c(None = "NULL", True = "TRUE", False = "FALSE", nan = "NaN", inf = "Inf")
  quoted <- gregexpr("\"(\\\\.|[^\"\\\\])*(\"|$)", text, perl = TRUE)
  regmatches(text, quoted, invert = TRUE) <- lapply(
    regmatches(text, quoted, invert = TRUE),
    function(parts) {
      for (word in names(words)) {
        parts <- gsub(paste0("\\b", word, "\\b"), words[[word]], parts, perl = TRUE)
      }
      parts
    }
  )
  text
}
