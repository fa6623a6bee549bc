# The texts of errors and warnings. Python sends either a text, which is shown as it is, or the kind
# and the details of a message, from which R makes a sentence of its own. See `Message` in
# python/adadelta/_core/messages.py.

sentence <- function(message) {
  if (is.character(message)) message else sentences[[message$kind]](message)
}

sentences <- list(
  argument = function(it) refusal(it$argument, alternatives(it$requirement), came = it$received),
  fixed = function(it) {
    with_received(paste0(
      in_quotes(it$argument), " can't be changed once the optimizer is built, since compiled ",
      "training would not see it; make a new one, for example with update(optimizer)"
    ), it$received)
  },
  rate_compiled = function(it) {
    with_received(paste0(
      "`learning_rate` can't be replaced by another kind of rate once TensorFlow has compiled the ",
      "training step; set it before training, or compile with run_eagerly = TRUE"
    ), it$received)
  },
  together = function(it) {
    given <- vapply(it$given, function(came) shortened(shown(came), 20), "")
    paste0(
      "Only one of ", listed(in_quotes(it$arguments)), " can be given; received ",
      paste0(names(given), "=", given, collapse = ", ")
    )
  },
  unknown = function(it) {
    text <- paste0(in_quotes(it$argument), " is not an argument of ", it$owner)
    if (!is.null(it$near)) return(paste0(text, " (did you mean ", in_quotes(it$near), "?)"))
    first <- in_quotes(utils::head(it$known, 4))
    others <- length(it$known) - length(first)
    all <- if (others) c(first, paste(others, "others")) else first
    paste0(text, "; it takes ", if (others) listed(all) else paste(all, collapse = ", "))
  },
  decay = function(it) {
    paste0(
      "`decay` is not an argument of ", it$owner, "; pass the schedule ",
      "keras$optimizers$schedules$InverseTimeDecay(learning_rate, decay_steps=1, decay_rate=",
      shortened(shown(it$received), 16), ") as `learning_rate`"
    )
  },
  no_equal = function(it) {
    paste0(
      in_quotes(it$argument), " of ", it$source, " has no equal in ", it$target, ": ", it$reason
    )
  },
  unbuilt = function(it) not_built("state"),
  averages_lost = function(it) {
    paste0(
      "the averages of ", it$variables, " became NaN; train new weights with ",
      "`skip_nonfinite = TRUE`, and look for missing values in the data, logarithms of 0 and ",
      "divisions by 0"
    )
  },
  not_converted = function(it) {
    with_problems("The state can't be converted: ", problems_of(it))
  },
  not_fitting = function(it) {
    start <- "The state does not fit this optimizer, which was left as it is: "
    with_problems(start, problems_of(it))
  },
  left_out = function(it) {
    paste("neither in `rename` nor in `perm`:", paste(it$names, collapse = ", "))
  },
  other_file = function(it) {
    if (is.null(it$alternative)) {
      what <- "is a safetensors file with something else: it was not written with"
    } else {
      what <- paste0("is ", it$alternative, ", or is no file written with")
    }
    paste(it$file, what, "save_optimizer_state()")
  }
)

# The message of an error in one line, without terminal colors and without the hints of JAX and
# reticulate on where to see more of it.
plain_message <- function(error) {
  text <- gsub("\033\\[[0-9;]*m", "", conditionMessage(error))
  text <- sub("\n-{10,}\nFor simplicity, JAX .*", "", text)
  text <- sub("\nRun `reticulate::py_last_error\\(\\)`.*", "", text)
  in_one_line(strsplit(trimws(text), "\n+")[[1]])
}

# Every problem of a state, including those for which a short message has no room.
problems_of <- function(message) {
  if (is.list(message) && length(message$problems)) {
    vapply(as.list(message$problems), sentence, "")
  }
}

with_problems <- function(start, problems) {
  text <- paste0(start, paste(problems, collapse = "; "))
  if (nchar(text) <= longest_message) return(text)
  others <- length(problems) - 1L
  end <- paste0(if (others) paste0("; ", others, " more"), " (all are in `problems` of this error)")
  paste0(start, shortened(problems[[1]], longest_message - nchar(start) - nchar(end)), end)
}

longest_message <- 200L

not_built <- function(what) {
  paste0(
    "this optimizer is not built, so it has no ", what, " yet: fit() builds it, or ",
    "optimizer$build(model$trainable_variables)"
  )
}

# The form of every message about a bad argument. `came` is a value that Python has sent.
refusal <- function(argument, requirement, value, came = list(value = value)) {
  with_received(paste0(in_quotes(argument), " must be ", requirement), came)
}

# Appends the received value to a text, as far as a message has room for it.
with_received <- function(text, came) {
  start <- paste0(text, "; received ")
  paste0(start, shortened(shown(came), max(20, min(80, longest_message - nchar(start)))))
}

# The values that an argument accepts, in words: texts as they are, other values as R code.
alternatives <- function(requirement) {
  is_text <- vapply(as.list(requirement), is.character, NA)
  words <- vapply(as.list(requirement), function(it) if (is.character(it)) it else r_code(it), "")
  listed(words, "or", comma = is_text[[1]] && length(words) > 1)
}

# A value as R code, with whole numbers without L, or Python's code for what only Python can show.
shown <- function(came) {
  if (!is.null(came$code)) return(came$code)
  is_whole <- is.integer(came$value) && is_plain_scalar(came$value)
  if (is_whole) as.character(came$value) else r_code(came$value)
}

in_quotes <- function(names) paste0("`", names, "`")

listed <- function(words, last = "and", comma = FALSE) {
  words <- as.character(words)
  if (length(words) < 2) return(words)
  others <- paste(words[-length(words)], collapse = ", ")
  paste0(others, if (comma) ",", " ", last, " ", words[[length(words)]])
}
