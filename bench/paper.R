# Tables 1 and 2 and Figure 2 of Zeiler (2012) from R, on the network and the data of the paper:
#
#     Rscript bench/paper.R [SEED ...]
#
# Run it at the root of this repository, with the package installed. Results are stored in
# inst/paper, where vignette("paper", "adadelta") reads them. Each finished cell is added to
# errors.csv and not run again, so a run can be stopped and continued at any time. Processes for
# different seeds can run side by side. All of it takes 40 minutes of processor time. MNIST is
# read from the file that ADADELTA_MNIST names, or else from Keras' cache, where it is downloaded
# if it is missing. The script reports anything that is missing before it runs anything.

library(adadelta)
folder <- file.path("inst", "paper")
source(file.path(folder, "experiment.R"))

# ---- The runs: each row is a cell with a seed ----

printed <- read.csv(file.path(folder, "printed.csv"))
cells <- cbind(
  printed[names(printed) != "error"],
  loss = "mean", first_weights = "glorot_uniform"
)
table_1 <- subset(cells, method != "ADADELTA")
table_2 <- subset(cells, method == "ADADELTA")

# Two things that the paper does not state: the initial weights, varied where they matter most, and
# the loss: as the sum over a batch, it makes all gradients 100 times as large.
drawn_otherwise <- transform(subset(table_2, epsilon == 1e-2), first_weights = "he_normal")
summed <- transform(subset(table_2, rho == 0.95), loss = "sum")

runs <- rbind(
  merge(table_2, data.frame(seed = 1:5)),
  merge(rbind(table_1, drawn_otherwise, summed), data.frame(seed = 1:3))
)
chosen <- as.integer(commandArgs(TRUE))
if (length(chosen) > 0) runs <- subset(runs, seed %in% chosen)

errors_file <- file.path(folder, "errors.csv")
rates_file <- file.path(folder, "rates.csv")
if (!file.exists(errors_file)) {
  writeLines(paste(c(names(runs), "error", "cpu_seconds"), collapse = ","), errors_file)
}

is_done <- function(run) {
  done <- read.csv(errors_file)
  nrow(merge(run, done[names(run)])) > 0
}
all_done <- all(vapply(split(runs, seq_len(nrow(runs))), is_done, NA))
if (all_done && file.exists(rates_file)) {
  cat("All is there. What is removed from", folder, "will be made again.\n")
  quit()
}

# ---- What it needs ----

if (is.na(mnist_path())) {
  given <- Sys.getenv("ADADELTA_MNIST", NA)
  if (!is.na(given)) stop("ADADELTA_MNIST names no file: ", given, call. = FALSE)
  cat("MNIST (11 MB) is downloaded. To use your own copy, set ADADELTA_MNIST to its path.\n")
  tryCatch(reticulate::import("keras")$datasets$mnist$load_data(), error = function(error) {
    stop(
      "MNIST can't be downloaded. Set ADADELTA_MNIST to the path of a file mnist.npz.",
      call. = FALSE
    )
  })
}
data <- read_mnist(mnist_path())

# ---- Its tools ----

processor <- function() {
  if (!file.exists("/proc/cpuinfo")) return(Sys.info()[["machine"]])
  sub(".*: ", "", grep("model name", readLines("/proc/cpuinfo"), value = TRUE)[[1]])
}
python_version <- reticulate::import("importlib.metadata")$version
backend <- reticulate::import("keras")$config$backend()
made <- list(
  date = format(Sys.Date()),
  processor = processor(),
  cores = parallel::detectCores(),
  backend = backend,
  versions = c(
    list(
      R = format(getRversion()),
      Python = reticulate::import("platform")$python_version()
    ),
    sapply(c("adadelta", "reticulate"), function(name) format(packageVersion(name))),
    sapply(c("keras", backend, "numpy"), python_version)
  )
)
jsonlite::write_json(made, file.path(folder, "made.json"), auto_unbox = TRUE, pretty = TRUE)

# ---- Tables 1 and 2 ----

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

# ---- Figure 2: effective rates and updates, in the network with tangents ----

if (!file.exists(rates_file)) {
  optimizer <- optimizer_adadelta(1, rho = 0.95, epsilon = 1e-6)
  rates <- follow_rates(data, optimizer, seed = 1, epochs = 25, every = 120)
  write.csv(rates, rates_file, quote = FALSE, row.names = FALSE)
}
