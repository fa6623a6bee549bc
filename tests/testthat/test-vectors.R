# The shared vectors: parameters and state after every step, from 50-digit arithmetic.
#
# Everything is in float64. Each number was measured within 2e-13 of the true value, relative to
# it: 1e-11 leaves room for other processors, and detects any constant rounded to float32 (6e-8).
tolerance <- 1e-11

# The numbers of a tensor in Python's order, rows first. "NaN" and "Inf" are stored as strings.
as_numbers <- function(values) vapply(values, as.numeric, 0)

as_tensor <- function(values, shape) {
  numbers <- as_numbers(values)
  shape <- unlist(shape)
  if (length(shape) > 1) numbers <- aperm(array(numbers, rev(shape)))
  if (length(shape) == 1) numbers <- array(numbers)
  keras$ops$convert_to_tensor(numbers, dtype = "float64")
}

expect_close <- function(actual, expected, label) {
  for (i in seq_along(expected)) {
    true <- as_numbers(expected[[i]])
    distance <- abs(as.numeric(aperm(as.array(actual[[i]]))) - true)
    expect_true(all(distance <= tolerance * abs(true)), label = label)
  }
}

make_variables <- function(case) {
  lapply(case$variables, function(described) {
    variable <- keras$Variable(
      as_tensor(described$initial, described$shape),
      dtype = "float64",
      name = described$name
    )
    if (!is.null(described$constraint)) variable$constraint <- keras$constraints$NonNeg()
    variable
  })
}

make_optimizer <- function(case) {
  arguments <- case$arguments
  rate <- arguments$learning_rate
  if (is.list(rate)) {
    arguments$learning_rate <- keras$optimizers$schedules$ExponentialDecay(
      rate$initial_learning_rate, rate$decay_steps, rate$decay_rate
    )
  }
  if (identical(case$weight_decay_mode, "coupled")) arguments$decoupled_weight_decay <- FALSE
  do.call(optimizer_adadelta, arguments)
}

# The optimizer's own state, as it is saved: by name.
saved_state <- function(optimizer, case, slot) {
  store <- reticulate::dict()
  optimizer$save_own_variables(store)
  store <- reticulate::py_to_r(store)
  names <- vapply(case$variables, `[[`, "", "name")
  unname(store[paste0(names, "|", slot)])
}

check_vectors <- function(case) {
  variables <- make_variables(case)
  optimizer <- make_optimizer(case)
  shapes <- lapply(case$variables, `[[`, "shape")
  expected <- case$expected
  for (call in seq_along(case$gradients)) {
    gradients <- Map(function(values, shape) {
      if (!is.null(values)) as_tensor(values, shape)
    }, case$gradients[[call]], shapes)
    optimizer$apply(unname(gradients), variables)
    if (length(expected) == 0 || expected[[1]]$call != call) next
    state <- expected[[1]]
    expected <- expected[-1]
    label <- paste0(case$name, ", call ", call, ": ")
    actual <- lapply(variables, function(variable) variable$numpy())
    expect_close(actual, state$variables, paste0(label, "variables"))
    slots <- c(square_avg = "square_avg", acc_delta = "acc_delta", average = "average",
               window = "window_sum")
    for (key in names(slots)) {
      if (is.null(state[[key]])) next
      actual <- saved_state(optimizer, case, slots[[key]])
      expect_close(actual, state[[key]], paste0(label, key))
    }
    expect_identical(as.integer(optimizer$iterations$numpy()), state$update)
    expect_identical(optimizer$skipped, state$skipped)
  }
  expect_length(expected, 0)
}

# Other conventions decay weights and rates in ways that belong to other classes.
applies <- function(case) {
  !identical(case$weight_decay_mode, "unscaled") && is.null(case$arguments$decay)
}

for (name in c("trajectories", "options", "pairs", "conventions")) {
  test_that(paste("vectors:", name), {
    skip_without_keras()
    cases <- Filter(applies, read_vectors(name)$cases)
    expect_gt(length(cases), 8)
    for (case in cases) check_vectors(case)
  })
}
