# The pages of the R package, in docs/: build.R [quick|frame]
#
# "quick" leaves out the results of the examples, for looking at the pages while writing; "frame"
# makes only what finish.py fills with Python's pages.
mode <- c(commandArgs(TRUE), "")[[1]]

# Pages are drawn by the package as it is installed, and no server is asked for anything: not by
# pkgdown, and not by downlit, which looks up at CRAN where the pages of a package are that a
# vignette loads and that is not installed, as keras3.
options(pkgdown.internet = FALSE)
utils::assignInNamespace(
  "CRAN_urls", function() data.frame(Package = character(), URL = character()), "downlit"
)
library(adadelta)

# The menu of Python's guides, each called what its first line says.
package <- pkgdown::as_pkgdown(".")
names <- tools::file_path_sans_ext(list.files("python/guides", "[.]md$"))
names <- names[order(match(names, package$meta$guides))]
guides <- lapply(names, function(name) {
  first <- readLines(file.path("python", "guides", paste0(name, ".md")), n = 1, encoding = "UTF-8")
  list(text = sub("^# +", "", first), href = paste0("python/", name, ".html"))
})
python <- package$meta$navbar$components$python
package$meta$navbar$components$python$menu <- c(guides, python$menu)

if (mode != "frame") {
  before <- list.files("vignettes", full.names = TRUE)
  pkgdown::clean_site(package)
  pkgdown::build_site(
    package,
    examples = mode != "quick", run_dont_run = FALSE, devel = FALSE, install = FALSE,
    preview = FALSE, new_process = FALSE
  )
  # Scripts of pkgdown's own templates, which pkgdown/templates/head.html does without, and pictures
  # that examples draw in steps of which only the last is shown.
  unlink(c("docs/pkgdown.js", Sys.glob("docs/reference/Rplot*.png")))
  # Files that articles wrote.
  unlink(setdiff(list.files("vignettes", full.names = TRUE), before), recursive = TRUE)
}

# The frames of Python's guides and of its reference: the same header, menus and search.
dir.create("docs/python/api", recursive = TRUE, showWarnings = FALSE)
for (path in c("python/frame.html", "python/api/frame.html")) {
  data <- list(pagetitle = "FRAME-TITLE", body = "<div id=\"frame-body\"></div>")
  pkgdown::render_page(package, "title-body", data, path, quiet = TRUE)
}
