"""The trio builder: text of the model's own, route search, healing, draft, calibration, advice.

Offline jobs over one model folder; they know no server and no request.
"""
