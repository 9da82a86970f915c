# HTC++ without the mask and the semantic branch: the Objects365 stage, which has boxes only.
_base_ = 'htc++.py'
model = dict(
    data_preprocessor=dict(pad_mask=False, pad_seg=False),
    # Not interleaved: in mmdet the interleaved cascade refines boxes on the way to its mask
    # branch, so that without one all three stages would be trained on the first proposals.
    roi_head=dict(interleaved=False, mask_roi_extractor=None, mask_head=None, semantic_roi_extractor=None, semantic_head=None))
