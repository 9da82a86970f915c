"""Colours with enough contrast, and names for what Gradio leaves without one."""

from __future__ import annotations

from .offline_gradio import gradio as gr

_SUBDUED, _SUBDUED_DARK = '#55555f', '#b4b4bd'
_BUTTON, _BUTTON_HOVER = '#0b5c8f', '#084a74'

# The tabs are measured in a second, hidden list, which the keyboard must not enter.
CSS = """
.tab-container.visually-hidden { visibility: hidden; }
#examples .grid-wrap { height: auto; min-height: 0; padding-top: 2em; }
#examples .grid-container {
  grid-template-columns: repeat(4, minmax(0, 1fr)) !important; height: auto;
}
"""

# For screen readers: pictures and buttons without a name get the label of their block.
HEAD = """<script>
(() => {
  const labelOf = (element) =>
    element.closest('.block')?.querySelector('label, [data-testid="block-label"]')?.innerText.trim()
    || 'image';
  const complete = () => {
    for (const image of document.querySelectorAll('img:not([alt])')) {
      image.alt = labelOf(image);
    }
    for (const button of document.querySelectorAll('button:not([aria-label])')) {
      if (!button.innerText.trim() && !button.title) {
        button.setAttribute('aria-label', labelOf(button));
      }
    }
    for (const empty of document.querySelectorAll('div[aria-label]:not([role])')) {
      empty.setAttribute('role', 'group');
    }
    for (const region of document.querySelectorAll('.cm-scroller[tabindex="-1"]')) {
      region.tabIndex = 0;
    }
  };
  new MutationObserver(complete).observe(
    document.documentElement,
    { childList: true, subtree: true, attributeFilter: ['alt', 'src'] },
  );
  complete();
})();
</script>"""


def theme() -> gr.themes.Base:
    """Return Gradio's theme in colours that meet WCAG AA on light and dark."""
    return gr.themes.Default(primary_hue='blue').set(
        body_text_color_subdued=_SUBDUED,
        body_text_color_subdued_dark=_SUBDUED_DARK,
        block_info_text_color=_SUBDUED,
        block_info_text_color_dark=_SUBDUED_DARK,
        block_label_text_color=_SUBDUED,
        block_label_text_color_dark=_SUBDUED_DARK,
        input_placeholder_color=_SUBDUED,
        input_placeholder_color_dark=_SUBDUED_DARK,
        button_primary_background_fill=_BUTTON,
        button_primary_background_fill_dark=_BUTTON,
        button_primary_background_fill_hover=_BUTTON_HOVER,
        button_primary_background_fill_hover_dark=_BUTTON_HOVER,
        button_primary_text_color='#ffffff',
        button_primary_text_color_dark='#ffffff',
    )
