# The problems of problems.json as R functions. problems.py is the same in Python.

# Names in the formulas that base R lacks, or that it has for real numbers only.
formula_names <- list2env(parent = baseenv(), list(
  odd = function(x) x[c(TRUE, FALSE)],
  even = function(x) x[c(FALSE, TRUE)],
  negative = function(x) as.numeric(Re(x) < 0),
  log_gamma = function(x) {
    if (!is.complex(x)) return(lgamma(x))
    complex(real = lgamma(Re(x)), imaginary = Im(x) * digamma(Re(x)))
  }
))

read_problems <- function(path) {
  problems <- lapply(jsonlite::read_json(path, simplifyVector = TRUE, simplifyDataFrame = FALSE),
    function(problem) {
      # An operator of Python, which R parses as `^`.
      formula <- parse(text = problem$value, keep.source = FALSE)[[1]]
      data <- list2env(as.list(problem$data), parent = formula_names)
      at <- function(x) {
        eval(formula, c(list(x = x), stats::setNames(as.list(x), paste0("x", seq_along(x)))), data)
      }
      # The imaginary part of the value at a complex point is exact, unlike a difference:
      # Squire and Trapp 1998, doi:10.1137/S003614459631241X.
      slope <- function(x) {
        vapply(seq_along(x), function(i) {
          Im(at(replace(as.complex(x), i, complex(real = x[[i]], imaginary = 1e-100)))) * 1e100
        }, 0)
      }
      c(problem[c("name", "start", "best")], value = at, slope = slope)
    }
  )
  stats::setNames(problems, vapply(problems, `[[`, "", "name"))
}
