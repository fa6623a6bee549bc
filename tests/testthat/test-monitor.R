cars <- scale(as.matrix(mtcars[c("mpg", "wt", "hp")]))

watched <- function(optimizer, ..., epochs = 30L, monitor = adadelta_monitor(every = 10)) {
  keras$utils$clear_session()
  keras$utils$set_random_seed(1L)
  model <- keras$Sequential(list(
    keras$layers$Input(list(2L)),
    keras$layers$Dense(4L, activation = "tanh", name = "hidden"),
    keras$layers$Dense(1L, name = "output")
  ))
  model$compile(optimizer = optimizer, loss = "mse")
  callbacks <- c(list(monitor), list(...))
  model$fit(cars[, -1], cars[, 1, drop = FALSE], batch_size = 8L, epochs = epochs, verbose = 0L,
            callbacks = callbacks)
  list(model = model, monitor = monitor)
}

test_that("what is recorded is a data frame, and is what the optimizer holds", {
  skip_without_keras()
  run <- watched(optimizer_adadelta(0.5))
  data <- as.data.frame(run$monitor)
  expect_identical(nrow(data), 13L * 4L)
  expect_equal(unique(data$update), c(1, 1:12 * 10))
  expect_identical(range(data$epoch), c(1L, 30L))
  expect_match(levels(data$variable)[[1]], "hidden/kernel$")
  expect_match(levels(data$layer)[[2]], "output$")
  last <- utils::tail(data, 4)
  state <- optimizer_state(run$model$optimizer)$parameters
  root_mean <- function(slot) {
    vapply(state[as.character(last$variable)], function(one) sqrt(mean(one[[slot]])), 0)
  }
  # Computed in float32, read as float64.
  expect_equal(last$gradient_rms, unname(root_mean("square_avg")), tolerance = 1e-6)
  expect_equal(last$update_rms, 0.5 * unname(root_mean("acc_delta")), tolerance = 1e-6)
  kernel <- state[[as.character(last$variable)[[1]]]]
  rates <- 0.5 * sqrt((kernel$acc_delta + 1e-7) / (kernel$square_avg + 1e-7))
  expect_equal(last$effective_rate_q95[[1]], stats::quantile(rates, 0.95, names = FALSE),
               tolerance = 1e-6)
})

test_that("a monitor that has recorded nothing is an empty data frame, and says so", {
  skip_without_keras()
  monitor <- adadelta_monitor()
  data <- as.data.frame(monitor)
  expect_identical(dim(data), c(0L, 17L))
  expect_match(format(monitor)[[2]], "nothing recorded yet")
  expect_error(plot(monitor), "nothing is recorded yet", class = "adadelta_error_argument")
})

test_that("print() shows the last record, and returns its argument invisibly", {
  skip_without_keras()
  monitor <- watched(optimizer_adadelta(1))$monitor
  expect_output(shown <- withVisible(print(monitor)), "13 records, to update 120 in epoch 30: loss")
  expect_false(shown$visible)
  expect_length(format(monitor), 6)
})

test_that("summary() is the last record, and head() and tail() are those of the data frame", {
  skip_without_keras()
  run <- watched(optimizer_adadelta(1))
  data <- as.data.frame(run$monitor)
  expect_identical(as.data.frame(summary(run$monitor)), data[data$update == 120, ])
  expect_identical(summary(run$monitor)$variable, unique(data$variable))
  # As outside of this package, where only registered methods are found.
  shown <- eval(quote(utils::head(monitor)), list(monitor = run$monitor), globalenv())
  expect_identical(shown, data[1:6, ])
  expect_identical(utils::head(run$monitor, 2), data[1:2, ])
  expect_identical(utils::tail(run$monitor, 4), as.data.frame(summary(run$monitor)))
  expect_identical(dim(summary(adadelta_monitor())), c(0L, 17L))
})

test_that("print() of a summary fits the width of the page", {
  skip_without_keras()
  run <- watched(optimizer_adadelta(1))
  last <- summary(run$monitor)
  for (width in c(50, 80, 120)) {
    withr::local_options(width = width)
    lines <- utils::capture.output(shown <- withVisible(print(last)))
    expect_false(shown$visible)
    expect_lte(max(nchar(lines)), width)
    expect_match(paste(lines, collapse = " "), "to update 120 in epoch 30: loss .*effective")
    for (name in c("hidden/kernel", "output/bias")) expect_true(any(grepl(name, lines)))
    expect_lte(max(nchar(format(run$monitor))), 80)
  }
  medians <- formatC(last$effective_rate_q50, digits = 2, format = "g")
  for (median in medians) expect_true(any(grepl(median, lines, fixed = TRUE)))
  # A part of the summary is a data frame.
  expect_output(print(last[c("variable", "weight_rms")]), "variable +weight_rms")
  expect_output(print(summary(adadelta_monitor())), "nothing recorded yet")
})

test_that("arguments are checked", {
  skip_without_keras()
  for (bad in list(0, 1.5, NA, NULL, "a", c(1, 2), Inf)) {
    error <- expect_error(adadelta_monitor(every = bad), "`every` must be a whole number",
                          class = "adadelta_error_argument")
    expect_identical(conditionCall(error)[[1]], quote(adadelta_monitor))
    expect_error(adadelta_monitor(sample = bad), "`sample` must be", class = "adadelta_error")
  }
})

test_that("another optimizer is refused before anything changes", {
  skip_without_keras()
  expect_error(watched(keras$optimizers$Adam()), "must be adadelta.Adadelta.*Adam")
})

test_that("a learning rate at which nothing moves is a warning, once and in the words of R", {
  skip_without_keras()
  warned <- list()
  withCallingHandlers(
    watched(optimizer_adadelta(), epochs = 60L),
    warning = function(warning) {
      warned <<- c(warned, list(warning))
      invokeRestart("muffleWarning")
    }
  )
  expect_length(warned, 1)
  expect_s3_class(warned[[1]], "adadelta_warning")
  expect_match(conditionMessage(warned[[1]]), "learning_rate = 1")
  expect_identical(conditionCall(warned[[1]])[[1]], quote(adadelta_monitor))
})

test_that("skipped calls and lost averages are warnings, in the words of R", {
  skip_without_keras()
  broken <- cars
  broken[3, 2] <- NaN
  fit <- function(...) {
    model <- keras$Sequential(list(keras$layers$Input(list(2L)), keras$layers$Dense(1L)))
    model$compile(optimizer = optimizer_adadelta(1, ...), loss = "mse")
    model$fit(broken[, -1], broken[, 1, drop = FALSE], epochs = 3L, batch_size = 8L,
              verbose = 0L, callbacks = list(adadelta_monitor(every = 2)))
  }
  expect_warning(fit(skip_nonfinite = TRUE), "calls skipped so far: .* NaN",
                 class = "adadelta_warning")
  expect_warning(fit(), "became NaN.*`skip_nonfinite = TRUE`", class = "adadelta_warning")
})

test_that("a healthy training gives no warning", {
  skip_without_keras()
  expect_warning(watched(optimizer_adadelta(1), epochs = 60L), NA)
})

test_that("long names are shortened to the width of the page", {
  skip_without_keras()
  monitor <- adadelta_monitor()
  layer <- keras$layers$Dense(1L, name = "a_layer_with_a_rather_long_name")
  model <- keras$Sequential(list(keras$layers$Input(list(2L)), layer), name = "of_a_model_like_it")
  model$compile(optimizer = optimizer_adadelta(1), loss = "mse")
  model$fit(cars[, -1], cars[, 1, drop = FALSE], verbose = 0L, callbacks = list(monitor))
  withr::local_options(width = 80)
  shown <- format(monitor)
  expect_lte(max(nchar(shown)), 80)
  expect_match(shown[[3]], "^  kernel +effective learning rate")
})

test_that("the pictures show each layer", {
  skip_without_keras()
  monitor <- watched(optimizer_adadelta(1))$monitor
  folder <- withr::local_tempdir()
  grDevices::pdf(file.path(folder, "page-%d.pdf"), onefile = FALSE)
  withr::defer(grDevices::dev.off())
  shown <- withVisible(plot(monitor))
  expect_length(list.files(folder), 1)
  expect_false(shown$visible)
  expect_identical(shown$value, monitor)
  expect_error(plot(monitor, variables = "nothing"), "`variables` must be recorded variables",
               class = "adadelta_error_argument")
  expect_error(plot(monitor, variables = character()), "`variables` must be recorded variables",
               class = "adadelta_error_argument")

  skip_if_not_installed("ggplot2")
  picture <- ggplot2::autoplot(monitor)
  expect_identical(levels(picture$data$layer), c("hidden", "output"))
  data <- as.data.frame(monitor)
  rows <- picture$data$layer == "output" & picture$data$quantity == "Update (RMS)"
  expect_identical(picture$data$middle[rows],
                   data$update_rms[grepl("output/kernel", data$variable)])
  # One band for each layer, which the title of its panel names.
  bands <- ggplot2::layer_data(picture, 1)
  largest <- data[grepl("kernel", data$variable), ]
  expect_equal(sort(10^bands$ymax), sort(largest$effective_rate_q95))
  expect_match(monitor_labels[[1]], "band of the middle 90 %", fixed = TRUE)
  expect_error(ggplot2::ggplotGrob(picture), NA)
  bias <- grep("bias", levels(data$variable), value = TRUE)
  expect_identical(levels(ggplot2::autoplot(monitor, variables = bias)$data$layer),
                   c("hidden/bias", "output/bias"))
})

test_that("a monitor of an earlier session says that it is one", {
  skip_without_keras()
  path <- withr::local_tempfile()
  saveRDS(adadelta_monitor(), path)
  monitor <- readRDS(path)
  expect_match(format(monitor), "earlier session")
  expect_error(as.data.frame(monitor), "earlier session", class = "adadelta_error")
  call_of <- function(code) conditionCall(error_of(code))
  expect_identical(call_of(as.data.frame(monitor)), quote(as.data.frame(monitor)))
  expect_identical(call_of(plot(monitor)), quote(plot(monitor)))
  expect_identical(call_of(summary(monitor)), quote(summary(monitor)))
  expect_identical(call_of(utils::head(monitor, 3)), quote(head(monitor, 3)))
  expect_identical(call_of(utils::tail(monitor)), quote(tail(monitor)))
})

test_that("the defaults are those of Python", {
  skip_without_keras()
  class <- reticulate::import("adadelta")$Monitor
  parameters <- reticulate::import("inspect")$signature(class)$parameters
  for (name in c("every", "sample")) {
    expect_identical(formals(adadelta_monitor)[[name]], parameters$get(name)$default)
  }
})
