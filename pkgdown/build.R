# The pages of the R package, in docs/: build.R [quick]
#
# "quick" leaves out the results of the examples, for looking at the pages while writing.
quick <- identical(commandArgs(TRUE), "quick")

# Pages are drawn by the package as it is installed; pkgdown itself asks no server for anything.
options(pkgdown.internet = FALSE)
library(adadelta)
pkgdown::clean_site()
pkgdown::build_site(
  examples = !quick, run_dont_run = FALSE, devel = FALSE, install = FALSE, preview = FALSE,
  new_process = FALSE
)
# Scripts of pkgdown's own templates, which pkgdown/templates/head.html does without.
unlink(file.path("docs", "pkgdown.js"))
