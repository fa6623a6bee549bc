# How much of R/ the tests run: coverage.R [least percent]. Lists the lines that no test ran.
#
# The sessions that tests start for themselves are measured too. What is for a newer reticulate than
# this one can't run here; all of it stands in functions that are named below.
least <- 95

left_out <- list(
  # Functions of reticulate 1.41: run by the same tests on the latest environment.
  "R/install.R" = "install_for_session"
)

Sys.setenv(NOT_CRAN = "true")
measured <- covr::package_coverage(type = "tests", quiet = FALSE, function_exclusions = unlist(left_out))
missed <- covr::zero_coverage(measured)
print(missed[c("filename", "functions", "line", "value")], row.names = FALSE)
print(measured)
quit(status = as.integer(covr::percent_coverage(measured) < least))
