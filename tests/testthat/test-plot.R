local_page <- function(frame = parent.frame()) {
  path <- withr::local_tempfile(fileext = ".pdf", .local_envir = frame)
  grDevices::pdf(path)
  withr::defer(grDevices::dev.off(), envir = frame)
}

test_that("plot() draws a box for each variable, and restores the margins", {
  skip_without_keras()
  local_page()
  before <- graphics::par("mar")
  optimizer <- stepped(1)
  expect_invisible(plot(optimizer, main = "rates", boxfill = "grey"))
  expect_identical(plot(optimizer), summary(optimizer))
  expect_identical(graphics::par("mar"), before)
  # Two boxes: from 1/2 to 2 1/2 and a margin. The axis is logarithmic.
  expect_equal(graphics::par("usr")[3:4], c(0.42, 2.58))
  expect_true(graphics::par("xlog"))
  expect_invisible(plot(summary(optimizer), ylim = c(0.001, 10)))
})

test_that("a learning rate of 0 and variables without elements can be drawn", {
  skip_without_keras()
  local_page()
  optimizer <- optimizer_adadelta(0)
  optimizer$build(list(keras$Variable(matrix(0, 0, 3)), keras$Variable(1)))
  plot(optimizer)
  expect_false(graphics::par("xlog"))
  expect_equal(graphics::par("usr")[3:4], c(0.46, 1.54), tolerance = 0.05)
})

test_that("autoplot() is a ggplot with the numbers of the summary", {
  skip_without_keras()
  skip_if_not_installed("ggplot2")
  optimizer <- stepped(0.5)
  for (shown in list(optimizer, summary(optimizer))) {
    plot <- ggplot2::autoplot(shown)
    expect_s3_class(plot, "ggplot")
    drawn <- ggplot2::layer_data(plot, 1)
    table <- summary(optimizer)
    expect_equal(sort(10^drawn$xmiddle), sort(table$rate_median))
    expect_equal(sort(10^drawn$xmax), sort(table$rate_max))
    expect_equal(10^ggplot2::layer_data(plot, 2)$xintercept, 0.5)
    expect_match(plot$labels$subtitle, "dashed: the learning rate", fixed = TRUE)
  }
})

test_that("what can't be drawn is an error that says why", {
  skip_without_keras()
  optimizer <- optimizer_adadelta(1)
  for (draw in list(plot, if (requireNamespace("ggplot2", quietly = TRUE)) ggplot2::autoplot)) {
    if (is.null(draw)) next
    for (shown in list(optimizer, summary(optimizer))) {
      expect_error(draw(shown), "not built", class = "adadelta_error_state")
    }
    expect_earlier_session(draw(of_earlier_session(optimizer)))
    expect_error(draw(summary(stepped(1))[, 1:3]), "lacks columns", class = "adadelta_error_state")
    empty <- optimizer_adadelta(1)
    empty$build(list(keras$Variable(matrix(0, 0, 3))))
    expect_error(draw(empty), "no effective rates", class = "adadelta_error_state")
  }
  error <- error_of(plot(optimizer))
  expect_identical(conditionCall(error), quote(plot(optimizer)))
})
