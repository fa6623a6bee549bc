# Writes vignettes/minimizing.csv: results of adadelta_optim() and the methods of optim() on the
# problems of tests/problems. Run it at the root of the repository, with the package installed:
#
#     Rscript bench/optim.R

library(adadelta)
source(file.path("tests", "problems", "problems.R"))

# One run, with the numbers of calls of `fn`, including those for differences, and of `gr`.
one_run <- function(problem, method, gr) {
  calls <- c(fn = 0, gr = 0)
  fn <- function(x) {
    calls[["fn"]] <<- calls[["fn"]] + 1
    problem$value(x)
  }
  slope <- function(x) {
    calls[["gr"]] <<- calls[["gr"]] + 1
    problem$slope(x)
  }
  if (!gr) slope <- NULL
  seconds <- system.time(found <- tryCatch(
    if (method == "adadelta") {
      adadelta_optim(problem$start, fn, slope)
    } else {
      # The defaults, 100 and 500, are too few for some problems.
      optim(problem$start, fn, slope, method = method, control = list(maxit = 1000))
    },
    error = function(error) {
      list(value = NA, convergence = NA, message = conditionMessage(error))
    }
  ))[["elapsed"]]
  data.frame(
    problem = problem$name, parameters = length(problem$start), gradient = gr, method = method,
    value = signif(found$value, 12), convergence = found$convergence,
    fn = calls[["fn"]], gr = calls[["gr"]], seconds = round(seconds, 4),
    message = if (is.null(found$message)) "" else found$message
  )
}

methods <- c("adadelta", "BFGS", "CG", "L-BFGS-B", "Nelder-Mead")
problems <- read_problems(file.path("tests", "problems", "problems.json"))
# Numbers on the command line select problems, whose results are added to the file.
chosen <- as.integer(commandArgs(trailingOnly = TRUE))
is_part <- length(chosen) > 0
if (!is_part) chosen <- seq_along(problems)
# The first call starts Python.
invisible(adadelta_optim(1, function(x) x^2))
ways <- expand.grid(
  method = methods, gr = c(TRUE, FALSE), problem = chosen, stringsAsFactors = FALSE
)
rows <- Map(function(method, gr, problem) one_run(problems[[problem]], method, gr),
  ways$method, ways$gr, ways$problem
)
file <- file.path("vignettes", "minimizing.csv")
is_new <- !is_part || !file.exists(file)
utils::write.table(do.call(rbind, rows), file, sep = ",", row.names = FALSE, qmethod = "double",
                   append = !is_new, col.names = is_new)
