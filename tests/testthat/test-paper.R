# The experiments of the paper: the stored results, what vignettes/paper.Rmd says about them, and
# the functions that made them.

kept <- function(name) system.file("paper", name, package = "adadelta", mustWork = TRUE)
experiment <- new.env(parent = environment())
sys.source(kept("experiment.R"), experiment)
printed <- utils::read.csv(kept("printed.csv"))
errors <- utils::read.csv(kept("errors.csv"))
table_2 <- subset(printed, method == "ADADELTA")
as_assumed <- with(errors, errors[loss == "mean" & first_weights == "glorot_uniform", ])

# 28 x 28 pixels of noise, in which each digit lights two different rows.
local_images <- function(count, frame = parent.frame()) {
  withr::local_seed(1)
  numpy <- reticulate::import("numpy", convert = FALSE)
  part <- function(count) {
    labels <- rep(0:9, length.out = count)
    images <- array(sample(0:60, count * 784, replace = TRUE), c(count, 28, 28))
    for (i in seq_len(count)) images[i, 2 * labels[[i]] + 1:2, ] <- 200
    # A pixel that never changes, like those at the edges of MNIST.
    images[, 28, 28] <- 0
    list(
      images = numpy$array(images)$astype("uint8"), labels = numpy$array(labels)$astype("uint8")
    )
  }
  train <- part(count)
  test <- part(100)
  path <- withr::local_tempfile(fileext = ".npz", .local_envir = frame)
  numpy$savez(
    path,
    x_train = train$images, y_train = train$labels, x_test = test$images, y_test = test$labels
  )
  path
}

test_that("the tables are those of the paper", {
  in_rows <- matrix(table_2$error, 4, byrow = TRUE)
  expect_identical(in_rows[, 1], c(2.59, 2.05, 1.90, 2.29)) # rho 0.9
  expect_identical(in_rows[, 2], c(2.58, 1.99, 1.83, 2.13)) # rho 0.95
  expect_identical(in_rows[, 3], c(2.32, 2.28, 2.05, 2.00)) # rho 0.99
  expect_identical(table_2$rho, rep(c(0.9, 0.95, 0.99), 4))
  expect_identical(table_2$epsilon, rep(c(1e-2, 1e-4, 1e-6, 1e-8), each = 3))
  others <- subset(printed, method != "ADADELTA")
  expect_identical(others$learning_rate, rep(c(1, 1e-1, 1e-2, 1e-3, 1e-4), 3))
  expect_identical(unique(others$method), c("SGD", "momentum", "Adagrad"))
  expect_identical(others$error, c(
    2.26, 2.51, 7.02, 17.01, 58.10,
    89.68, 2.03, 2.68, 6.98, 16.98,
    43.76, 2.82, 1.79, 5.21, 12.59
  ))
})

test_that("every cell was run with at least three seeds, and once with each", {
  keys <- setdiff(names(errors), c("error", "cpu_seconds"))
  expect_false(anyDuplicated(errors[keys]) > 0)
  expect_true(all(errors$error >= 0 & errors$error <= 100))
  expect_true(all(experiment$compare_with_paper(as_assumed, printed)$runs >= 3))
  summed <- experiment$compare_with_paper(
    subset(errors, loss == "sum"), subset(table_2, rho == 0.95)
  )
  expect_true(all(summed$runs >= 3))
  he <- experiment$compare_with_paper(
    subset(errors, first_weights == "he_normal"), subset(table_2, epsilon == 1e-2)
  )
  expect_true(all(he$runs >= 3))
})

test_that("errors are compared cell by cell", {
  cells <- data.frame(method = c("a", "a", "b"), rho = c(0.5, 0.75, NA), error = c(1, 2, 3))
  runs <- data.frame(
    method = c("b", "a", "a", "b", "a"), rho = c(NA, 0.5, 0.75, NA, 0.5),
    seed = c(1, 1, 1, 2, 2), error = c(4, 1, 7, 8, 3)
  )
  compared <- experiment$compare_with_paper(runs, cells)
  expect_identical(compared$runs, c(2L, 1L, 2L))
  expect_equal(compared$mean, c(2, 7, 6))
  expect_equal(compared$sd, c(sqrt(2), NA, sqrt(8)))
  expect_equal(compared$difference, c(1, 5, 3))
})

test_that("MNIST is looked for where it is said to be, or where Keras keeps it", {
  home <- withr::local_tempdir()
  dir.create(file.path(home, "datasets"))
  path <- file.path(home, "datasets", "mnist.npz")
  file.create(path)
  withr::local_envvar(ADADELTA_MNIST = path, KERAS_HOME = withr::local_tempdir())
  expect_identical(experiment$mnist_path(), path)
  withr::local_envvar(ADADELTA_MNIST = file.path(home, "another.npz"))
  expect_identical(experiment$mnist_path(), NA_character_)
  withr::local_envvar(ADADELTA_MNIST = NA, KERAS_HOME = home)
  expect_identical(experiment$mnist_path(), path)
})

test_that("a cell is trained and tested, and its seed decides what comes out", {
  skip_without_keras()
  data <- experiment$read_mnist(local_images(1000L))
  images <- reticulate::py_to_r(data$test$images)
  expect_identical(dim(images), c(100L, 784L))
  # An image has its rows of 28 pixels one after the other: the second digit lights rows 3 and 4.
  expect_equal(images[2, 57:112], rep(200 / 255, 56), tolerance = 1e-6)
  expect_identical(as.integer(reticulate::py_to_r(data$test$labels))[1:10], 0:9)
  error_with <- function(optimizer, ...) {
    experiment$train_and_test(data, optimizer, seed = 1, epochs = 2L, ...)
  }
  trained <- error_with(optimizer_adadelta(1, epsilon = 1e-6))
  expect_lt(trained, 20)
  expect_identical(error_with(optimizer_adadelta(1, epsilon = 1e-6)), trained)
  # Guessing among ten digits gets 90 % wrong, and weights without steps are no better.
  expect_gt(error_with(optimizer_adadelta(0)), 60)
  weights <- function(...) {
    experiment$make_network(optimizer_adadelta(1), ...)$get_weights()[[3]]
  }
  expect_identical(weights(1), weights(1))
  expect_false(identical(weights(1), weights(2)))
  expect_gt(sd(weights(1, first_weights = "he_normal")), 1.1 * sd(weights(1)))
})

test_that("the loss is the mean or the sum over a batch", {
  skip_without_keras()
  data <- experiment$read_mnist(local_images(100L))
  loss <- function(...) {
    network <- experiment$make_network(optimizer_adadelta(0), 1, ...)
    network$train_on_batch(data$train$images, data$train$labels)[[1]]
  }
  expect_equal(loss(loss = "sum"), 100 * loss(), tolerance = 1e-5)
})

test_that("the optimizer of each cell has its arguments", {
  skip_without_keras()
  config_of <- function(i) experiment$make_optimizer(printed[i, ])$get_config()
  for (i in seq_len(nrow(printed))) {
    config <- config_of(i)
    expect_equal(config$learning_rate, printed$learning_rate[[i]], tolerance = 1e-6)
    if (printed$method[[i]] == "ADADELTA") {
      expect_identical(config$rho, printed$rho[[i]])
      expect_identical(config$epsilon, printed$epsilon[[i]])
    }
  }
  config_of_first <- function(name) config_of(match(name, printed$method))
  expect_identical(config_of_first("SGD")$momentum, 0)
  expect_identical(config_of_first("momentum")$momentum, 0.9)
  expect_equal(config_of_first("Adagrad")$initial_accumulator_value, 0)
})

test_that("rates and updates are followed", {
  skip_without_keras()
  data <- experiment$read_mnist(local_images(400L))
  optimizer <- optimizer_adadelta(1, rho = 0.9, epsilon = 1e-4)
  rates <- experiment$follow_rates(data, optimizer, seed = 1, epochs = 2L, every = 2L)
  expect_identical(unique(rates$batch), c(2, 4, 6, 8))
  expect_identical(nrow(rates), 4L * 3L * 11L)
  expect_true(all(rates$rate > 0))
  expect_true(all(subset(rates, weight == 0)$update > 0))
  expect_equal(optimizer_state(optimizer)$update, 8)

  # With a very large epsilon under both roots the rate is 1; a learning rate of 0 changes nothing.
  still <- experiment$follow_rates(
    data, optimizer_adadelta(0, epsilon = 1e4),
    seed = 1, epochs = 1L, every = 2L
  )
  expect_true(all(still$rate == 1))
  expect_true(all(still$update == 0))
  expect_false(all(rates$rate == 1))
})

# ---- What vignettes/paper.Rmd says ----

found <- experiment$compare_with_paper(as_assumed, printed)
found_2 <- subset(found, method == "ADADELTA")

test_that("every cell of ADADELTA is within 0.4 percentage points of the paper", {
  expect_true(all(found_2$runs == 5))
  expect_lte(max(abs(found_2$difference)), 0.4)
  expect_lte(max(abs(found_2$difference[found_2$epsilon < 1e-2])), 0.25)
  by_epsilon <- tapply(found_2$mean, found_2$epsilon, mean)
  printed_by_epsilon <- tapply(found_2$paper, found_2$epsilon, mean)
  expect_identical(which.min(by_epsilon), which.min(printed_by_epsilon))
  expect_identical(which.max(by_epsilon), which.max(printed_by_epsilon))
  expect_lt(max(subset(as_assumed, method == "ADADELTA")$error), 3)
})

test_that("the other methods come out in the shape of the paper", {
  found <- subset(found, method != "ADADELTA")
  at_1 <- subset(found, learning_rate == 1)
  expect_gt(at_1$mean[at_1$method == "momentum"], 85)
  expect_gt(at_1$mean[at_1$method == "Adagrad"], 30)
  others <- subset(found, paper < 40 | method == "SGD")
  # Ratios, since the errors range from 1.79 % to 58.10 %.
  expect_true(all(others$mean / others$paper > 0.8 & others$mean / others$paper < 1.25))
  band <- range(subset(as_assumed, method == "ADADELTA")$error)
  inside <- found$mean >= band[[1]] & found$mean <= band[[2]]
  expect_true(all(tapply(inside, found$method, sum) == 2))
})

test_that("a sum over the batch and other first weights do what is said", {
  of <- function(errors, cells) experiment$compare_with_paper(errors, cells)
  summed <- of(subset(errors, loss == "sum"), subset(table_2, rho == 0.95))
  expect_gt(summed$mean[summed$epsilon == 1e-2], 85)
  expect_gt(summed$mean[summed$epsilon == 1e-4], 2 * summed$paper[summed$epsilon == 1e-4])
  he <- of(subset(errors, first_weights == "he_normal"), subset(table_2, epsilon == 1e-2))
  expect_true(all(he$sd > found_2$sd[found_2$epsilon == 1e-2]))
})

test_that("effective rates and updates go as the paper says", {
  rates <- utils::read.csv(kept("rates.csv"))
  expect_identical(nrow(rates), 25L * 5L * 3L * 11L)
  medians <- split(subset(rates, weight == 0), ~layer)
  first <- vapply(medians, function(rows) rows$rate[[1]], 0)
  expect_true(all(diff(first) < 0))
  for (rows in medians) {
    expect_gt(utils::tail(rows$rate, 1), 0.99)
    expect_lt(stats::median(utils::tail(rows$update, 5)), rows$update[[1]] / 20)
  }
})
