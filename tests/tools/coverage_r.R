# How much of R/ the tests run, with a list of the lines that no test ran. R sessions that tests
# start are measured too. Functions that are left out are named here, with the reason.
least <- 95

left_out <- c(
  # For py_require(), of reticulate 1.41: the same tests run them on the latest environment.
  "install_for_session", "forget_packages", "require_packages",
  # These run while the package is loaded, before covr can follow them.
  ".onLoad", "prefer_own_environment", "when_python_runs"
)

Sys.setenv(NOT_CRAN = "true")
measured <- covr::package_coverage(type = "tests", function_exclusions = left_out)
missed <- covr::zero_coverage(measured)
print(missed[c("filename", "functions", "line")], row.names = FALSE)
print(measured)
cat("left out:", left_out, "\n")
quit(status = as.integer(covr::percent_coverage(measured) < least))
