# Tables 1 and 2 and Figure 2 of Zeiler (2012) from R, on the network and the data of the paper:
#
#     Rscript bench/paper.R [SEED ...]
#
# Run it in the root of this repository, with the package installed. The seeds are 1, 2 and 3 unless
# others are named. What came out is kept in inst/paper, where vignette("paper", "adadelta") reads
# it: each finished cell is added to errors.csv, and one that is there is not run again, so that a
# run can be stopped and started at any time. All of it takes about half an hour on two cores. MNIST
# comes from the file that ADADELTA_MNIST names, or from Keras' cache, to which it is downloaded.

library(adadelta)
folder <- file.path("inst", "paper")
source(file.path(folder, "experiment.R"))

seeds <- as.integer(commandArgs(TRUE))
if (length(seeds) == 0) seeds <- 1:3

if (is.na(mnist_path())) reticulate::import("keras")$datasets$mnist$load_data()
data <- read_mnist(mnist_path())

# ---- Tables 1 and 2: every cell with every seed, ADADELTA's first ----

printed <- read.csv(file.path(folder, "printed.csv"))
cells <- cbind(
  printed[names(printed) != "error"],
  loss = "mean", first_weights = "glorot_uniform"
)
# And what the paper does not say: other first weights, where they matter most, and a loss that is
# the sum over a batch, so that all gradients are 100 times as large.
adadelta_cells <- subset(cells, method == "ADADELTA")
drawn_otherwise <- transform(subset(adadelta_cells, epsilon == 1e-2), first_weights = "he_normal")
summed <- transform(subset(adadelta_cells, rho == 0.95), loss = "sum")
runs <- merge(rbind(cells, drawn_otherwise, summed), data.frame(seed = seeds))
runs <- runs[order(runs$loss, runs$first_weights, runs$method != "ADADELTA", runs$seed), ]

errors_file <- file.path(folder, "errors.csv")
if (!file.exists(errors_file)) {
  writeLines(paste(c(names(runs), "error", "cpu_seconds"), collapse = ","), errors_file)
}

is_done <- function(run) {
  done <- read.csv(errors_file)
  nrow(merge(run, done[names(run)])) > 0
}

for (i in seq_len(nrow(runs))) {
  run <- runs[i, ]
  if (is_done(run)) next
  time <- system.time(error <- train_and_test(
    data, make_optimizer(run), run$seed,
    loss = run$loss, first_weights = run$first_weights
  ))
  line <- cbind(run, error = error, cpu_seconds = round(sum(time[1:2]), 1))
  write.table(
    line, errors_file,
    append = TRUE, sep = ",", na = "", quote = FALSE, row.names = FALSE, col.names = FALSE
  )
  cat(format(Sys.time(), "%H:%M:%S"), paste(names(line), line, sep = " = ", collapse = ", "), "\n")
}

# ---- Figure 2: effective rates and updates, with the network of tangents ----

rates_file <- file.path(folder, "rates.csv")
if (!file.exists(rates_file)) {
  optimizer <- optimizer_adadelta(1, rho = 0.95, epsilon = 1e-6)
  rates <- follow_rates(data, optimizer, seed = 1, epochs = 25, every = 120)
  write.csv(rates, rates_file, quote = FALSE, row.names = FALSE)
}

# ---- With what it was made ----

version_of <- reticulate::import("importlib.metadata")$version
modules <- c("keras", "jax", "numpy")
made <- list(
  date = format(Sys.Date()),
  processor = sub(".*: ", "", grep("model name", readLines("/proc/cpuinfo"), value = TRUE)[[1]]),
  cores = parallel::detectCores(),
  backend = reticulate::import("keras")$config$backend(),
  versions = c(
    R = paste(getRversion()),
    adadelta = paste(packageVersion("adadelta")),
    reticulate = paste(packageVersion("reticulate")),
    Python = paste(reticulate::py_config()$version),
    sapply(modules, version_of)
  )
)
made$versions <- as.list(made$versions)
jsonlite::write_json(made, file.path(folder, "made.json"), auto_unbox = TRUE, pretty = TRUE)
