history_of <- function(..., epochs = 3L) {
  cars <- scale(as.matrix(mtcars[c("mpg", "wt", "hp")]))
  model <- keras$Sequential(list(keras$layers$Input(list(2L)), keras$layers$Dense(1L)))
  model$compile(optimizer = optimizer_adadelta(1), loss = "mse", metrics = list("mae"))
  model$fit(cars[, -1], cars[, 1, drop = FALSE], epochs = epochs, verbose = 0L, ...)
}

test_that("a history becomes a data frame with the columns of keras3", {
  skip_without_keras()
  history <- history_of(validation_split = 0.25)
  data <- as.data.frame(history)
  expect_identical(names(data), c("epoch", "value", "metric", "data"))
  expect_identical(dim(data), c(12L, 4L))
  expect_identical(levels(data$data), c("training", "validation"))
  expect_setequal(levels(data$metric), c("loss", "mae"))
  of <- function(metric, data_of) {
    rows <- data[data$metric == metric & data$data == data_of, ]
    expect_identical(rows$epoch, 1:3)
    rows$value
  }
  expect_identical(of("loss", "training"), as.numeric(history$history$loss))
  expect_identical(of("mae", "validation"), as.numeric(history$history$val_mae))
})

test_that("a history of one epoch, of later epochs, or without conversion is a data frame too", {
  skip_without_keras()
  expect_identical(as.data.frame(history_of(epochs = 1L))$epoch, c(1L, 1L))
  expect_identical(as.data.frame(history_of(epochs = 5L, initial_epoch = 3L))$epoch, rep(4:5, 2))
  history <- keras$callbacks$History()
  expect_identical(dim(as.data.frame(history)), c(0L, 4L))
  raw <- reticulate::import("keras", convert = FALSE)$callbacks$History()
  raw$set_model(keras$Sequential())
  raw$on_train_begin()
  raw$on_epoch_end(0L, list(loss = 0.5))
  expect_identical(as.data.frame(raw)$value, 0.5)
})

test_that("a metric that is not computed in each epoch has no epoch, and none that is no number", {
  skip_without_keras()
  data <- as.data.frame(history_of(epochs = 4L, validation_split = 0.25, validation_freq = 2L))
  expect_identical(unique(data$epoch[data$data == "validation"]), NA_integer_)
  expect_identical(sum(data$data == "validation"), 4L)
  history <- keras$callbacks$History()
  history$set_model(keras$Sequential())
  history$on_train_begin()
  history$on_epoch_end(0L, list(loss = 0.5, confusion = c(1, 2)))
  expect_identical(as.character(as.data.frame(history)$metric), "loss")
})

test_that("a history is drawn with base graphics and with ggplot2", {
  skip_without_keras()
  history <- history_of(validation_split = 0.25)
  path <- withr::local_tempfile(fileext = ".pdf")
  grDevices::pdf(path)
  before <- graphics::par("mfrow")
  shown <- withVisible(plot(history, log = "y"))
  expect_identical(graphics::par("mfrow"), before)
  grDevices::dev.off()
  expect_false(shown$visible)
  expect_identical(shown$value, as.data.frame(history))
  expect_gt(file.size(path), 2000)
  skip_if_not_installed("ggplot2")
  plot <- ggplot2::autoplot(history)
  built <- ggplot2::ggplot_build(plot)
  expect_identical(nrow(built$data[[1]]), 12L)
  expect_identical(length(unique(built$data[[1]]$PANEL)), 2L)
  expect_error(plot(keras$callbacks$History()), "no numbers", class = "adadelta_error_state")
})

test_that("a history of an earlier session says what to keep", {
  skip_without_keras()
  gone <- of_earlier_session(history_of())
  expect_earlier_session(as.data.frame(gone))
  expect_earlier_session(plot(gone))
  expect_earlier_session(gone$history)
  expect_match(conditionMessage(error_of(plot(gone))), "keep as.data.frame() of it", fixed = TRUE)
})
