#' Do two optimizers have the same settings and the same state?
#'
#' Compares the settings and the state of two optimizers, and says what differs,
#' as [all.equal()] does.
#'
#' Parameters are compared by name. Names that differ only in the numbers that
#' Keras gives to layers, or in the name of the model, count as the same, as they
#' do in [load_optimizer_state()]. Two R functions as learning rate are the same
#' if their code is the same.
#'
#' @param target,current Optimizers made by [optimizer_adadelta()].
#' @param tolerance Settings and averages count as equal if their mean relative
#'   difference is smaller than this. With 0, they must be the same numbers.
#'   Counts must always be the same. Default: `1.5e-8`, as in [all.equal()]. Keras
#'   computes in float32, so values that ought to be equal may differ by about
#'   1e-6.
#' @param ... Further arguments of [all.equal()], for numbers.
#' @return `TRUE`, or a character vector that says what differs: the settings
#'   first, then the counts, then the averages by the parameter's name. Use
#'   `isTRUE(all.equal(target, current))` where a `TRUE` or `FALSE` is needed.
#' @seealso [as.list.adadelta.Adadelta()] for the settings, [optimizer_state()] for
#'   the state.
#' @method all.equal adadelta.Adadelta
#' @export
#' @examplesIf keras_available()
#' one <- optimizer_adadelta(learning_rate = 1)
#' all.equal(one, optimizer_adadelta(learning_rate = 1))
#' all.equal(one, update(one, rho = 0.9, weight_decay = 0.01))
all.equal.adadelta.Adadelta <- function(target, current, ...,
                                        tolerance = sqrt(.Machine$double.eps)) {
  call <- method_call(sys.call(), "all.equal")
  check_given(call)
  if (!inherits(current, "adadelta.Adadelta")) {
    return(paste0("target is an Adadelta optimizer, current is ", class(current)[[1]]))
  }
  is_gone <- c(
    target = is_of_earlier_session(target), current = is_of_earlier_session(current)
  )
  if (any(is_gone)) {
    return(paste(names(is_gone)[is_gone], "is an optimizer of an earlier session, which is gone"))
  }
  states <- core_call("comparable", call, target, current)
  messages <- c(
    differing(
      comparable_settings(target), comparable_settings(current),
      function(one, other) isTRUE(all.equal(one, other, ..., tolerance = tolerance))
    ),
    differing_states(states[[1]], states[[2]], ..., tolerance = tolerance)
  )
  if (length(messages)) messages else TRUE
}

differing_states <- function(target, current, ...) {
  if (is.null(target) && is.null(current)) return(NULL)
  if (is.null(target)) return("target is not built, current is")
  if (is.null(current)) return("target is built, current is not")
  names <- list(target = names(target$parameters), current = names(current$parameters))
  only <- list(
    target = setdiff(names$target, names$current), current = setdiff(names$current, names$target)
  )
  only <- only[lengths(only) > 0]
  c(
    differing(target$counters, current$counters, identical),
    paste0(
      "parameters only in ", names(only), ": ", vapply(only, paste, "", collapse = ", "),
      recycle0 = TRUE
    ),
    unlist(lapply(intersect(names$target, names$current), function(name) {
      differing_arrays(name, target$parameters[[name]], current$parameters[[name]], ...)
    }))
  )
}

differing_arrays <- function(parameter, target, current, ...) {
  unlist(lapply(union(names(target), names(current)), function(slot) {
    said <- all.equal(target[[slot]], current[[slot]], ...)
    if (!isTRUE(said)) paste0(parameter, ", ", slot, ": ", said)
  }))
}

# One line for each element in which two lists differ, with both values.
differing <- function(target, current, is_same) {
  unlist(lapply(union(names(target), names(current)), function(name) {
    if (is_same(target[[name]], current[[name]])) return(NULL)
    shown <- vapply(list(target[[name]], current[[name]]), format_setting, "")
    shown <- sub("^([0-9]+)L$", "\\1", shown)
    paste0(name, ": target is ", shown[[1]], ", current is ", shown[[2]])
  }))
}

comparable_settings <- function(optimizer) {
  settings <- as.list(optimizer)
  settings$learning_rate <- without_note(settings$learning_rate)
  settings
}

# The note lets a session find an R function again. It does not describe the function.
without_note <- function(value) {
  if (!is.list(value)) return(value)
  lapply(value[names(value) != "note"], without_note)
}
