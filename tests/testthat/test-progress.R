fit_with <- function(callback, epochs = 3L, ..., verbose = 0L) {
  cars <- scale(as.matrix(mtcars[c("mpg", "wt", "hp")]))
  model <- keras$Sequential(list(keras$layers$Input(list(2L)), keras$layers$Dense(1L)))
  model$compile(optimizer = optimizer_adadelta(1), loss = "mse", metrics = list("mae"))
  model$fit(cars[, -1], cars[, 1, drop = FALSE], batch_size = 8L, epochs = epochs,
            verbose = verbose, callbacks = if (is.list(callback)) callback else list(callback),
            ...)
}

test_that("there is a line for each epoch, with all metrics", {
  skip_without_keras()
  withr::local_options(cli.dynamic = FALSE)
  lines <- utils::capture.output(
    history <- fit_with(adadelta_progress(TRUE), validation_split = 0.25)$history
  )
  expect_length(lines, 3)
  metrics <- "^epoch [123]/3  loss [0-9.e-]+  mae [0-9.e-]+  val_loss .*  "
  time <- "[0-9.]+ m?s"
  expect_match(lines[1:2], paste0(metrics, "\\(", time, " per epoch, (up to )?", time, " left\\)$"))
  expect_match(lines[[3]], paste0(metrics, "\\(", time, " per epoch, ", time, " in all\\)$"))
  shown <- as.numeric(sub(".* val_loss ([^ ]*) .*", "\\1", lines))
  # Four digits are shown.
  expect_equal(shown, unlist(history$val_loss), tolerance = 1e-3)
})

test_that("of many epochs about 20 are shown, the first and the last among them", {
  skip_without_keras()
  withr::local_options(cli.dynamic = FALSE)
  lines <- utils::capture.output(invisible(fit_with(adadelta_progress(TRUE), 45L)))
  epochs <- as.integer(sub("^epoch +([0-9]+)/45 .*", "\\1", lines))
  expect_identical(epochs, c(1L, seq(2L, 44L, by = 2L), 45L))
})

test_that("the time that is left is that of the epochs that are left, at the pace so far", {
  clock <- started()
  # A training that continues with its fifth epoch, and compiles its model for 10 seconds.
  clock <- after_epoch(clock, clock$start + 11)
  line <- epoch_line(5, 12, list(loss = 0.5), clock)
  expect_match(line, "^epoch  5/12  loss 0.5000  \\(11 s per epoch, up to 77 s left\\)$")
  clock <- after_epoch(clock, clock$start + 12)
  clock <- after_epoch(clock, clock$start + 14)
  line <- epoch_line(7, 12, list(), clock)
  expect_match(line, "^epoch  7/12  \\(1.5 s per epoch, 7.5 s left\\)$")
  line <- epoch_line(12, 12, list(), clock)
  expect_match(line, "^epoch 12/12  \\(1.5 s per epoch, 14 s in all\\)$")
  times <- c(0.0123, 0.56, 1.23, 12.3, 99, 100, 3599, 7300)
  expect_identical(
    vapply(times, in_time, ""),
    c("12 ms", "560 ms", "1.2 s", "12 s", "99 s", "2 min", "60 min", "2 h 2 min")
  )
})

test_that("nothing is shown where nobody looks, unless it is asked for", {
  skip_without_keras()
  expect_output(fit_with(adadelta_progress(FALSE)), NA)
  skip_if(interactive())
  expect_output(fit_with(adadelta_progress()), NA)
  withr::local_options(knitr.in.progress = TRUE)
  expect_false(has_bars())
  expect_output(fit_with(adadelta_progress(TRUE)), "epoch 3/3")
})

test_that("a terminal has a bar, and at the end the last line", {
  skip_without_keras()
  skip_if_not_installed("cli")
  withr::local_options(
    cli.dynamic = TRUE, cli.progress_show_after = 0, cli.progress_handlers_only = "logger",
    knitr.in.progress = NULL
  )
  expect_true(has_bars())
  lines <- utils::capture.output(invisible(fit_with(adadelta_progress(TRUE), 20L)))
  expect_match(lines[[1]], "created|added")
  expect_match(utils::tail(lines, 1), "^epoch 20/20  loss ")
  expect_true(any(grepl("60/60", lines)) || any(grepl("terminated|done", lines)))
})

test_that("R's functions run on R's thread, and so does Keras' own bar then", {
  skip_without_keras()
  reticulate::py_run_string("
import threading, keras
class Thread(keras.callbacks.Callback):
    async_safe = True
    found = set()
    def on_train_batch_end(self, batch, logs=None):
        self.found.add(threading.current_thread() is threading.main_thread())
")
  thread <- reticulate::py$Thread()
  called <- 0
  callback <- core()$progress_callback(function(...) {
    called_by_python(called <<- called + 1)
  }, 0, "nothing")
  fit_with(list(callback, thread), 2L)
  # Begin and end of training, two epochs of four batches, and the ends of the epochs.
  expect_identical(called, 12)
  expect_true(reticulate::import_builtins()$all(thread$found))
})

test_that("it prints what it shows", {
  skip_without_keras()
  withr::local_options(cli.dynamic = FALSE)
  callback <- adadelta_progress(TRUE)
  expect_output(
    shown <- withVisible(print(callback)), "^<Adadelta progress: shows a line for each epoch>$"
  )
  expect_false(shown$visible)
  expect_identical(shown$value, callback)
  expect_identical(format(adadelta_progress(FALSE)), "<Adadelta progress: shows nothing>")
  path <- withr::local_tempfile()
  saveRDS(callback, path)
  expect_match(format(readRDS(path)), "earlier session")
})

test_that("`show` is checked", {
  for (bad in list(NA, NULL, 1, "yes", c(TRUE, FALSE))) {
    expect_error(adadelta_progress(show = bad), "`show` must be TRUE or FALSE; received",
                 class = "adadelta_error_argument")
  }
})
