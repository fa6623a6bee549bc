#' Try several settings
#'
#' Trains once with each combination of some arguments of an optimizer, and
#' returns one table of the results. Each training gets a new optimizer of its
#' own.
#'
#' All optimizers are made first, so a wrong argument is an error before anything
#' is trained. If a training fails, the others still run, and its message is in
#' the column `error`. If you interrupt the function, it returns the table of the
#' results so far, with a warning.
#'
#' After each training, models and arrays that nothing refers to any more are
#' removed from the memory of R and of Python. Make the model inside of `fit`, and
#' set the seed there: `keras$utils$set_random_seed(1L)` gives each training the
#' same first weights. Better still, train with several seeds and compare the
#' means: differences that are smaller than those between seeds are chance.
#'
#' @param optimizer An optimizer made by [optimizer_adadelta()], with all other
#'   arguments. It is not changed.
#' @param ... Arguments of [optimizer_adadelta()], by name, each with the values
#'   to try: a vector, or a list for values that no vector can have, such as
#'   schedules, functions and `NULL`. The table shows the names of a list.
#' @param fit A function that takes an optimizer, trains a model with it, and
#'   returns the result: a number, a vector or a list of numbers with names, or a
#'   data frame of one row.
#' @return A data frame with a row for each combination, in the order of
#'   [expand.grid()]: a column for each argument, a column for each result
#'   (`value` if `fit` returns a number without a name; `NA` if the training
#'   failed), and `error`: the message of the error that ended it, or `NA`.
#' @section Errors: It is an error of class `adadelta_error_argument` if
#'   [optimizer_adadelta()] does not accept an argument, or if `optimizer` or
#'   `fit` is not valid. For an optimizer of an earlier session, the error has
#'   class `adadelta_error_state`.
#' @seealso [update.adadelta.Adadelta()], which makes the optimizers.
#'   `vignette("training", "adadelta")` shows how to use several processes.
#' @export
#' @examplesIf keras_available()
#' keras <- reticulate::import("keras")
#' cars <- scale(as.matrix(mtcars[c("mpg", "wt", "hp")]))
#'
#' fit <- function(optimizer) {
#'   keras$utils$set_random_seed(1L)
#'   layers <- list(keras$layers$Input(list(2L)), keras$layers$Dense(1L))
#'   model <- keras$Sequential(layers)
#'   model$compile(optimizer = optimizer, loss = "mse")
#'   history <- model$fit(
#'     cars[, 2:3], cars[, 1, drop = FALSE],
#'     epochs = 10L, validation_split = 0.25, verbose = 0L
#'   )$history
#'   c(loss = tail(history$loss, 1), val_loss = tail(history$val_loss, 1))
#' }
#' results <- adadelta_grid(
#'   optimizer_adadelta(), learning_rate = c(0.1, 1), rho = c(0.9, 0.95), fit = fit
#' )
#' results[order(results$val_loss), ]
adadelta_grid <- function(optimizer, ..., fit) {
  call <- named_call(sys.call(), "adadelta_grid")
  check_given(call)
  check_session(optimizer, call)
  if (!inherits(optimizer, "adadelta.Adadelta")) {
    refuse("optimizer", "one made by optimizer_adadelta()", optimizer, call)
  }
  if (!is.function(fit)) refuse("fit", "a function of an optimizer", fit, call)
  values <- check_names(list(...), call)
  check_grid(values, call)

  cells <- expand.grid(lapply(values, seq_along), KEEP.OUT.ATTRS = FALSE)
  make <- function(cell) {
    updated(optimizer, Map(`[[`, values, cells[cell, , drop = FALSE]), call)
  }
  # A wrong argument is an error before anything is trained.
  for (cell in seq_len(nrow(cells))) make(cell)
  results <- trained(make, nrow(cells), fit, names(values), call)
  columns <- Map(function(value, index) shown_values(value)[index], values, cells)
  data.frame(columns, table_of(results), check.names = FALSE)
}

check_grid <- function(values, call) {
  if (!length(values)) {
    fail("`...` must have at least one argument of optimizer_adadelta()", "argument", call)
  }
  for (name in names(values)) {
    value <- values[[name]]
    if (is.function(value) || !is.vector(value) || !length(value)) {
      refuse(name, "a vector or a list of the values to try", value, call)
    }
  }
}

# How the table shows the values of an argument.
shown_values <- function(values) {
  if (is.atomic(values)) return(unname(values))
  are_numbers <- vapply(values, function(it) is.null(it) || is_plain_scalar(it), NA)
  is_named <- !is.null(names(values))
  if (!is_named && all(are_numbers)) {
    return(unlist(lapply(values, function(it) if (is.null(it)) NA else it)))
  }
  code <- vapply(values, function(it) {
    if (is_python(it)) class(it)[[1]] else shortened(function_code(it), 40)
  }, "")
  if (is_named) ifelse(nzchar(names(values)), names(values), code) else code
}

# The result of each training: a data frame of one row, or the condition that ended it.
trained <- function(make, number, fit, arguments, call) {
  results <- rep(list(simpleError("interrupted")), number)
  for (cell in seq_len(number)) {
    result <- tryCatch(
      as_result(fit(make(cell)), arguments),
      error = identity, interrupt = identity
    )
    if (inherits(result, "interrupt")) {
      warn(paste0("interrupted in training ", cell, " of ", number), call)
      break
    }
    results[[cell]] <- result
    # Python frees its objects when R has collected its references to them, which R does not do
    # while its own memory is not full. From the first to the last of 12 models with a million
    # weights, memory grew by 22 MB, and by 164 MB without this.
    gc()
    reticulate::import("gc")$collect()
  }
  results
}

as_result <- function(result, arguments) {
  if (is.numeric(result) && length(result) == 1 && is.null(names(result))) {
    result <- c(value = as.vector(result))
  }
  if (!is_row(result)) {
    stop(
      "`fit` must return a number, or numbers with names as a vector, a list or a data frame of ",
      "one row; received ", shortened(r_code(result)), call. = FALSE
    )
  }
  clashing <- intersect(names(result), c(arguments, "error"))
  if (length(clashing)) {
    stop(
      in_quotes(clashing[[1]]), " in what `fit` returns is a column of the table already",
      call. = FALSE
    )
  }
  as.data.frame(as.list(result), optional = TRUE)
}

# Whether a value can be a row of a table: single values, each with a name of its own.
is_row <- function(value) {
  if (!is.atomic(value) && !is.list(value)) return(FALSE)
  names <- names(value)
  length(names) > 0 && all(nzchar(names)) && !anyDuplicated(names) &&
    all(vapply(as.list(value), function(it) is.atomic(it) && length(it) == 1, NA))
}

table_of <- function(results) {
  failed <- vapply(results, inherits, NA, "condition")
  columns <- unique(unlist(lapply(results[!failed], names)))
  filled <- lapply(stats::setNames(columns, columns), function(name) {
    values <- lapply(seq_along(results), function(number) {
      if (failed[[number]] || is.null(results[[number]][[name]])) NA else results[[number]][[name]]
    })
    unlist(values)
  })
  message <- function(result) {
    if (inherits(result, "condition")) plain_message(result) else NA_character_
  }
  data.frame(
    c(filled, list(error = vapply(results, message, ""))), check.names = FALSE
  )
}
