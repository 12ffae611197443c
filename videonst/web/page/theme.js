// Runs before the first paint, so that the page never flashes in the wrong colours.
const theme = localStorage.getItem("videonst-theme");
if (theme) document.documentElement.dataset.theme = theme;
