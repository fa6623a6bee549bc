#' Show the progress of training
#'
#' Makes a callback that shows the progress of `fit()`. Use it with `verbose =
#' 0L` instead of Keras' own progress bar, which prints from another thread. In
#' knitr and RStudio, where Python's output goes through R, that can hang R.
#'
#' In a terminal or console that can rewrite its last line, and with the package
#' cli installed, it shows a progress bar; like all bars of cli, the bar appears
#' when training takes more than two seconds. Elsewhere it prints a line for each
#' epoch, or for about 20 epochs if there are more. Both show the metrics, the
#' mean time of an epoch so far, and how long the remaining epochs will take at
#' that pace; the last line shows how long training took. The model is compiled in
#' the first epoch, which therefore often takes much longer. So the mean leaves it
#' out as soon as there is a second epoch, and the remaining time that is shown
#' after the first epoch is an upper bound.
#'
#' With this callback, Keras calls all callbacks from R's thread, including its
#' own progress bar.
#'
#' @param show `TRUE` or `FALSE`: whether to show progress. By default progress
#'   is shown in interactive sessions only, and not by knitr; with `TRUE` it is
#'   shown in scripts and documents too.
#' @param x A callback made by `adadelta_progress()`.
#' @param ... Not used.
#' @return A callback, a Python object of class `adadelta.Progress`, for the
#'   argument `callbacks` of a model's `fit()`. `print()` says what it shows and
#'   returns `x`, invisibly; `format()` returns the line that `print()` shows.
#' @section Errors: A bad argument is an error of class
#'   `adadelta_error_argument`.
#' @seealso [adadelta_monitor()] for what the optimizer does in each layer.
#' @export
#' @examplesIf keras_available()
#' keras <- reticulate::import("keras")
#' model <- keras$Sequential(list(keras$layers$Input(list(2L)), keras$layers$Dense(1L)))
#' model$compile(optimizer = optimizer_adadelta(1), loss = "mse")
#' cars <- scale(as.matrix(mtcars[c("mpg", "wt", "hp")]))
#' history <- model$fit(
#'   cars[, 2:3], cars[, 1, drop = FALSE], epochs = 3L, verbose = 0L,
#'   callbacks = list(adadelta_progress(show = TRUE))
#' )
adadelta_progress <- function(show = interactive() && !is_knitting()) {
  call <- named_call(sys.call(), "adadelta_progress")
  if (!is.logical(show) || length(show) != 1 || is.na(show)) {
    refuse("show", "TRUE or FALSE", show, call)
  }
  module <- core(call)
  callback <- function(show, interval, form) {
    module$progress_callback(function(...) called_by_python(show(...)), interval, form)
  }
  if (!show) return(callback(function(...) NULL, Inf, "nothing"))
  if (has_bars()) return(callback(bar(), 0.1, "a progress bar"))
  callback(lines_of_epochs(), Inf, "a line for each epoch")
}

#' @rdname adadelta_progress
#' @export
print.adadelta.Progress <- function(x, ...) {
  cat(format(x), sep = "\n")
  invisible(x)
}

#' @rdname adadelta_progress
#' @export
format.adadelta.Progress <- function(x, ...) {
  if (is_of_earlier_session(x)) {
    return("<Adadelta progress of an earlier session; make it again with adadelta_progress()>")
  }
  paste0("<Adadelta progress: shows ", x$form, ">")
}

is_knitting <- function() isTRUE(getOption("knitr.in.progress"))

has_bars <- function() {
  requireNamespace("cli", quietly = TRUE) && !is_knitting() && cli::is_dynamic_tty()
}

# Python reports an event as `what`: "begin", "batch", "epoch" or "end".
lines_of_epochs <- function() {
  clock <- NULL
  function(what, epoch, epochs, batch, steps, metrics) {
    if (what == "begin") clock <<- started()
    every <- max(1, epochs %/% 20)
    if (what == "epoch") {
      clock <<- after_epoch(clock)
      if (epoch %% every == 0 || clock$epochs == 1 || epoch == epochs) {
        cat(epoch_line(epoch, epochs, metrics, clock), "\n", sep = "")
      }
    }
    NULL
  }
}

bar <- function(place = new.env(parent = emptyenv())) {
  function(what, epoch, epochs, batch, steps, metrics) {
    if (what == "begin") {
      place$clock <- started()
      total <- epochs * max(steps, 1)
      place$id <- cli::cli_progress_bar(
        format = paste(
          "{cli::pb_bar} {cli::pb_percent} | {cli::pb_extra$status} |",
          "{cli::pb_eta_str}"
        ),
        total = if (total > 0) total else NA, extra = list(status = ""),
        .auto_close = FALSE, .envir = place
      )
    } else if (what == "end") {
      cli::cli_progress_done(id = place$id, .envir = place)
      cat(place$last, "\n", sep = "")
    } else {
      if (what == "epoch") {
        place$clock <- after_epoch(place$clock)
        place$last <- epoch_line(epoch, epochs, metrics, place$clock)
      }
      before <- if (what == "epoch") epoch else epoch - 1
      status <- paste0(
        epoch_of(epoch, epochs), format_metrics(metrics),
        if (place$clock$epochs) paste0("  ", per_epoch(place$clock))
      )
      cli::cli_progress_update(
        set = before * max(steps, 1) + batch, id = place$id, extra = list(status = status),
        .envir = place
      )
    }
    NULL
  }
}

# The time when training began, the number of epochs that have ended since, and the times when the
# first and the last of them ended. Epochs are counted here, since training may continue from a
# later one.
started <- function() list(start = proc.time()[["elapsed"]], epochs = 0)

after_epoch <- function(clock, now = proc.time()[["elapsed"]]) {
  clock$epochs <- clock$epochs + 1
  if (clock$epochs == 1) clock$first <- now
  clock$now <- now
  clock
}

# Seconds per epoch, without the first one, which took 0.5 s where the others took 7 ms.
pace <- function(clock) {
  if (clock$epochs == 1) return(clock$now - clock$start)
  (clock$now - clock$first) / (clock$epochs - 1)
}

epoch_line <- function(epoch, epochs, metrics, clock) {
  left <- epochs - epoch
  total <- if (left > 0) {
    paste0(if (clock$epochs == 1) "up to ", in_time(left * pace(clock)), " left")
  } else {
    paste(in_time(clock$now - clock$start), "in all")
  }
  paste0(
    epoch_of(epoch, epochs), format_metrics(metrics), "  (", per_epoch(clock), ", ", total, ")"
  )
}

per_epoch <- function(clock) paste(in_time(pace(clock)), "per epoch")

in_time <- function(seconds) {
  if (seconds < 1) return(sprintf("%.0f ms", 1000 * seconds))
  if (seconds < 100) return(paste(format(signif(seconds, 2)), "s"))
  minutes <- round(seconds / 60)
  if (minutes < 100) return(sprintf("%.0f min", minutes))
  sprintf("%.0f h %.0f min", minutes %/% 60, minutes %% 60)
}

epoch_of <- function(epoch, epochs) {
  paste0("epoch ", formatC(epoch, width = nchar(epochs)), "/", epochs)
}

format_metrics <- function(metrics) {
  if (!length(metrics)) return("")
  values <- vapply(metrics, function(value) formatC(value, digits = 4, flag = "#"), "")
  paste0("  ", names(metrics), " ", sub("\\.$", "", values), collapse = "")
}
