# The experiment of Zeiler (2012), section 4: a network with two hidden layers learns MNIST's digits
# with one optimizer. bench/paper.R runs it for all cells of the paper's tables, and
# vignette("paper", "adadelta") is about the results.

# ---- Data ----

# Where MNIST is: the file that ADADELTA_MNIST names, or else the one that Keras keeps. NA when
# there is none.
mnist_path <- function() {
  homes <- c(Sys.getenv("KERAS_HOME", "~/.keras"), "~/.keras")
  path <- Sys.getenv("ADADELTA_MNIST", NA)
  if (is.na(path)) path <- file.path(homes, "datasets", "mnist.npz")
  c(path.expand(path[file.exists(path)]), NA)[[1]]
}

# Images of 784 pixels from 0 to 1, and labels. They stay in Python, so that fit() takes them as
# they are.
read_mnist <- function(path) {
  numpy <- reticulate::import("numpy", convert = FALSE)
  arrays <- numpy$load(path)
  part <- function(name) {
    pixels <- arrays$get(paste0("x_", name))$reshape(-1L, 784L)
    list(
      images = numpy$divide(pixels, 255, dtype = "float32"),
      labels = arrays$get(paste0("y_", name))
    )
  }
  list(train = part("train"), test = part("test"))
}

# ---- Network ----

# 784-500-300-10. The seed decides the first weights and the order of the images. `loss` is the
# "mean" or the "sum" over the images of a batch; `first_weights` is how Keras draws them.
make_network <- function(optimizer, seed, activation = "relu", loss = "mean",
                         first_weights = "glorot_uniform") {
  keras <- reticulate::import("keras")
  layer <- function(units, ...) keras$layers$Dense(units, kernel_initializer = first_weights, ...)
  keras$utils$set_random_seed(as.integer(seed))
  network <- keras$Sequential(list(
    keras$layers$Input(list(784L)),
    layer(500L, activation = activation),
    layer(300L, activation = activation),
    layer(10L)
  ))
  network$compile(
    optimizer = optimizer,
    loss = keras$losses$SparseCategoricalCrossentropy(from_logits = TRUE, reduction = loss),
    metrics = list("accuracy")
  )
  network
}

# The share of test images that are given a wrong label after training, in percent.
train_and_test <- function(data, optimizer, seed, epochs = 6L, ...) {
  network <- make_network(optimizer, seed, ...)
  network$fit(
    data$train$images, data$train$labels,
    batch_size = 100L, epochs = epochs, verbose = 0L
  )
  found <- network$evaluate(
    data$test$images, data$test$labels,
    batch_size = 1000L, verbose = 0L
  )
  round(100 * (1 - found[[2]]), 2)
}

# ---- Optimizers ----

# The optimizer of one cell of the paper's tables, a row of printed.csv.
make_optimizer <- function(cell) {
  optimizers <- reticulate::import("keras")$optimizers
  rate <- cell$learning_rate
  switch(cell$method,
    ADADELTA = optimizer_adadelta(rate, rho = cell$rho, epsilon = cell$epsilon),
    SGD = optimizers$SGD(rate),
    momentum = optimizers$SGD(rate, momentum = 0.9),
    # Its sum of squares begins at 0 in the paper, and at 0.1 in Keras.
    Adagrad = optimizers$Adagrad(rate, initial_accumulator_value = 0)
  )
}

# ---- Rates ----

# Trains, and looks at one batch of every `every`: how far it moved weights of each of the three
# matrices, and their effective rates, by which the rule multiplies the gradients. Shown are 10
# weights of each matrix, drawn at random, and as weight 0 the median of all, of updates without
# their sign. Weights of pixels that are 0 in all images never move and are left out.
follow_rates <- function(data, optimizer, seed, epochs, every, activation = "tanh") {
  numpy <- reticulate::import("numpy")
  rule <- reticulate::import("adadelta._core.rule")
  network <- make_network(optimizer, seed, activation)
  optimizer$build(network$trainable_variables)

  take <- reticulate::import("numpy", convert = FALSE)$take
  fit <- function(images) {
    chosen <- lapply(data$train, take, array(images - 1L), axis = 0L)
    network$fit(
      chosen$images, chosen$labels,
      batch_size = 100L, shuffle = FALSE, verbose = 0L
    )
  }

  matrices <- c(1, 3, 5) # between them are the biases
  moving <- lapply(network$get_weights()[matrices], seq_along)
  moving[[1]] <- which(rep(numpy$any(data$train$images, axis = 0L), times = 500))
  set.seed(seed)
  drawn <- lapply(moving, function(weights) sample(length(weights), 10))

  look <- function() {
    averages <- optimizer_state(optimizer)$parameters[matrices]
    Map(function(weights, averages, moving) {
      lapply(c(list(weight = weights), averages), function(values) array(values[moving]))
    }, network$get_weights()[matrices], averages, moving)
  }
  compare <- function(before, after, layer) {
    rate <- rule$effective_rate(
      after$square_avg, before$acc_delta, optimizer$epsilon, numpy$sqrt
    )
    update <- after$weight - before$weight
    data.frame(
      layer = layer, weight = 0:10,
      rate = signif(c(stats::median(rate), rate[drawn[[layer]]]), 3),
      update = signif(c(stats::median(abs(update)), update[drawn[[layer]]]), 3)
    )
  }

  count <- length(data$train$labels)
  found <- list()
  for (epoch in seq_len(epochs)) {
    batches <- split(sample(count), rep(seq_len(count / 100), each = 100))
    for (first in seq(1, length(batches), by = every)) {
      last <- first + every - 1
      fit(unlist(batches[first:(last - 1)]))
      before <- look()
      fit(batches[[last]])
      rows <- do.call(rbind, Map(compare, before, look(), 1:3))
      found <- c(found, list(cbind(batch = (epoch - 1) * length(batches) + last, rows)))
    }
  }
  do.call(rbind, found)
}

# ---- Compare ----

# For each cell that is printed in the paper, how many runs there are, and the mean and standard
# deviation of their errors. The printed error is one number without a spread.
compare_with_paper <- function(errors, printed) {
  cells <- setdiff(names(printed), "error")
  found <- lapply(seq_len(nrow(printed)), function(i) merge(printed[i, cells], errors)$error)
  of_each <- function(summary) vapply(found, summary, 0)
  data.frame(
    printed[cells],
    paper = printed$error,
    runs = lengths(found),
    mean = of_each(mean), sd = of_each(stats::sd),
    difference = of_each(mean) - printed$error
  )
}
